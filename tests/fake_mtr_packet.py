"""A scripted stand-in for mtr-packet: its line protocol over an imagined path, with faults on order.

`FakeMtr` is pure: a command line in, delayed output out. It serves an in-memory process (`fakes.ProcessClock`) and a
real child process (`main`, wrapped by `fakes.install_fake`). Only the standard library is imported: it starts fast.
"""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What goes wrong. Counters start at 1; 0 or None means never. `every_*` strike every N-th probe."""

    exit_at_spawn: int | None = None  # exit code
    exit_at_read: int = 0
    exit_code: int = 1
    stderr: str = ""  # last words
    hang_at_read: int = 0  # stops answering, as if by SIGSTOP, though it goes on reading
    deaf: bool = False  # never reads its stdin
    flood_at_read: int = 0
    flood_bytes: int = 2_000_000
    garbage_at_read: int = 0
    chunk: int = 0  # output comes in pieces of this many bytes
    every_unknown: int = 0
    every_stolen: int = 0
    every_exhausted: int = 0
    every_emfile: int = 0
    every_in_use: int = 0
    every_oversized: int = 0
    every_bare_no_route: int = 0
    every_reset: int = 0
    every_lost: int = 0  # never answered at all, not even `no-reply`
    datagram: bool = False  # no raw sockets: claims everything, UDP unanswered, TCP hops `no-route`
    flow_broken: bool = False  # probes with a local port are lost
    no_loopback: bool = False
    slow_s: float = 0.0  # added to every answer
    rtt_shift_us: int = 0  # added to every printed RTT: a step of the wall clock


@dataclass
class FakeMtr:
    """An imagined mtr-packet. `hops` are the routers' addresses (None is silent), then comes every target.

    `answer` gives the output for one command line as (delay in seconds, bytes).
    """

    hops: tuple[str | None, ...] = ("192.0.2.1", None, "192.0.2.3")
    hops6: tuple[str | None, ...] = ("2001:db8::1", None, "2001:db8::3")
    rtt_s: float = 0.001
    version: str = "0.95"
    faults: Faults = field(default_factory=Faults)
    reads: int = 0
    probes: int = 0
    commands: list[bytes] = field(default_factory=list)

    def read(self) -> str | None:
        """One read(2) of commands is about to be handled: "exit", "hang", "flood", "garbage" or None."""
        self.reads += 1
        faults = self.faults
        if self.reads == faults.exit_at_read:
            return "exit"
        if faults.hang_at_read and self.reads >= faults.hang_at_read:
            return "hang"
        if self.reads == faults.flood_at_read:
            return "flood"
        if self.reads == faults.garbage_at_read:
            return "garbage"
        return None

    def answer(self, line: bytes) -> list[tuple[float, bytes]]:
        """The output for one command."""
        self.commands.append(line)
        words = line.split()
        token, name = words[0], words[1]
        values = dict(zip(words[2::2], words[3::2], strict=True))
        if name == b"check-support":
            return [(0.0, b"%b feature-support support %b\n" % (token, self._support(values[b"feature"])))]
        if name != b"send-probe":
            return [(0.0, b"%b unknown-command\n" % token)]
        delay, text = self._probe(values)
        if text is None:
            return []
        return [(delay + self.faults.slow_s, b"%b %b\n" % (token, text))]

    def _support(self, feature: bytes) -> bytes:
        if feature == b"version":
            return self.version.encode()
        return b"ok" if feature in (b"ip-4", b"ip-6", b"icmp", b"udp", b"tcp", b"send-probe") else b"no"

    def _probe(self, values: dict[bytes, bytes]) -> tuple[float, bytes | None]:
        faults = self.faults
        family = b"ip-6" if b"ip-6" in values else b"ip-4"
        if values[family] == b"x":
            return 0.0, b"invalid-argument"
        target, ttl, protocol = values[family], int(values[b"ttl"]), values[b"protocol"]
        timeout = float(values[b"timeout"])
        silence = (timeout, b"no-reply")
        if target in (b"127.0.0.1", b"::1"):  # what a self-test asks
            if faults.no_loopback:
                return 0.0, b"address-not-available"
            if faults.datagram or (faults.flow_broken and b"local-port" in values):
                return silence
            return 0.0, self._from(b"reply", family, target, 0.0)
        self.probes += 1
        struck = {
            "unknown": (0.0, b"bogus-word of some kind"),
            "stolen": (
                0.0,
                self._from(
                    b"ttl-expired", *((b"ip-6", b"2001:db8::99"), (b"ip-4", b"192.0.2.99"))[family == b"ip-6"], 0.0
                ),
            ),
            "exhausted": (0.0, b"probes-exhausted"),
            "emfile": (0.0, b"unexpected-error errno 24"),
            "in_use": (0.0, b"address-in-use"),
            "oversized": (0.0, b"x" * 5000),
            "bare_no_route": (0.0, b"no-route"),
            "reset": (self.rtt_s, b"unexpected-error errno 104"),
            "lost": (0.0, None),
        }
        for fault, result in struck.items():
            every = getattr(faults, f"every_{fault}")
            if every and self.probes % every == 0:
                return result
        hops = self.hops6 if family == b"ip-6" else self.hops
        if faults.datagram and protocol == b"udp":
            return silence
        if ttl > len(hops):
            rtt = self.rtt_s * (len(hops) + 1)
            return rtt, self._from(b"reply", family, target, rtt)
        if faults.datagram and protocol == b"tcp":
            return 0.0, b"no-route"
        hop = hops[ttl - 1]
        rtt = self.rtt_s * ttl
        return silence if hop is None else (rtt, self._from(b"ttl-expired", family, hop.encode(), rtt))

    def _from(self, word: bytes, family: bytes, address: bytes, rtt_s: float) -> bytes:
        rtt_us = round(rtt_s * 1e6) + self.faults.rtt_shift_us
        return b"%b %b %b round-trip-time %d" % (word, family, address, rtt_us)

    @property
    def flood(self) -> bytes:
        """A lot of lines nobody understands, and one far too long."""
        line = b"2000000077 what-is-this even supposed to mean\n"  # a token nobody uses
        return line * (self.faults.flood_bytes // len(line)) + b"y" * 100_000 + b"\n"


GARBAGE = bytes(range(256)) + b"\n\n \n-1 reply\n99999999999999999999 reply\n5\n0 command-parse-error\n\xff\xfe\n"


def main(fake: FakeMtr) -> None:
    """Be a child process: commands on stdin, replies on stdout, until stdin ends and all is answered."""
    faults = fake.faults

    def say_last_words(code: int) -> None:
        sys.stderr.write(faults.stderr)
        sys.stderr.flush()
        os._exit(code)

    def put(data: bytes) -> None:
        size = faults.chunk or len(data) or 1
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            while piece:
                piece = piece[os.write(1, piece) :]

    if faults.exit_at_spawn is not None:
        say_last_words(faults.exit_at_spawn)
    while faults.deaf:
        time.sleep(60)
    due: list[tuple[float, bytes]] = []
    rest, open_ = b"", True
    while open_ or due:
        wait = max(0.0, min(due)[0] - time.monotonic()) if due else None
        if select.select([0] if open_ else [], [], [], wait)[0]:
            data = os.read(0, 4095)
            open_ = bool(data)
            event = fake.read() if data else None
            if event == "exit":
                say_last_words(faults.exit_code)
            while event == "hang":
                os.read(0, 4095)
                time.sleep(0.01)
            if event in ("flood", "garbage"):
                put(fake.flood if event == "flood" else GARBAGE)
            *lines, rest = (rest + data).split(b"\n")
            now = time.monotonic()
            due += [(now + delay, output) for line in lines for delay, output in fake.answer(line)]
        now = time.monotonic()
        put(b"".join(output for when, output in sorted(due) if when <= now))
        due = [entry for entry in due if entry[0] > now]
