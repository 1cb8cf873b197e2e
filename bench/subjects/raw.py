"""A bare mtr-packet driven in a tight loop: what the component itself can do, to compare ours with.

Job: targets, hops (TTL 1 to `hops` to each), window (probes in flight). Nothing is kept but who answered.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from ..routes import lines_of


def drive(targets: list[str], hops: int, window: int) -> dict[str, Any]:
    """Send every probe once, `window` in flight."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((targets[0], 9))
        source = probe.getsockname()[0]
    lines = [line.encode() for line in lines_of(targets, source, hops)]
    with subprocess.Popen(["mtr-packet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin.fileno(), process.stdout.fileno()
        replies = []
        cpu, began = time.process_time(), time.perf_counter()
        sent = min(window, len(lines))
        for start in range(0, sent, 8):
            os.write(to, b"".join(lines[start : min(start + 8, sent)]))
        rest = b""
        while len(replies) < len(lines):
            chunk = os.read(back, 65536)
            if not chunk:
                raise EOFError("mtr-packet ended")
            *whole, rest = (rest + chunk).split(b"\n")
            replies += whole
            for start in range(sent, min(sent + len(whole), len(lines)), 8):
                os.write(to, b"".join(lines[start : min(start + 8, sent + len(whole), len(lines))]))
            sent += len(whole)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    answered = [reply.split() for reply in replies]
    found: dict[str, list[str | None]] = {target: [None] * hops for target in targets}
    for words in answered:
        if len(words) > 3:
            place, ttl = divmod(int(words[0]) - 1, hops)
            found[targets[place]][ttl] = words[3].decode()
    silent = sum(len(words) < 4 for words in answered)
    return {"wall_s": wall, "cpu_s": cpu, "sent": len(lines), "lost": silent, "routes": found}


def main() -> None:
    """Take jobs until standard input ends."""
    print('{"ready": true}', flush=True)
    for text in sys.stdin:
        print(json.dumps(drive(**json.loads(text))), flush=True)


if __name__ == "__main__":
    main()
