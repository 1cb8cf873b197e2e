"""The real daemon on a ground, as an operator starts it: `tracerouted serve`, with limits raised by name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from .grounds import ROOT, Ground
from .subjects import Subject, ours

PORT = 8080


@contextmanager
def daemon(ground: Ground, client: Subject, *, log: IO[bytes] | None = None, **settings: Any) -> Iterator[int]:
    """A running daemon, ready to trace; its process id. `settings` are fields of `tracerouted.settings.Settings`,
    `log` is where it logs errors (our own standard error where it is None)."""
    variables = {f"TRACEROUTED_{name.upper()}": str(value) for name, value in settings.items()}
    process = ground.popen(
        # It goes when the benchmark does, however that ends (setpriv(1)).
        ["setpriv", "--pdeathsig", "TERM", "--", *ours("daemon", "tracerouted", "serve")],
        env={**os.environ, **variables, "TRACEROUTED_LOG_LEVEL": "error"},
        cwd=ROOT,
        stderr=log,
        stdout=subprocess.DEVNULL,
    )
    try:
        client(do="ready", port=PORT)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def post(target: str, **fields: Any) -> list[Any]:
    """A request for a trace that is answered when the trace has ended; see `subjects.client`."""
    body = json.dumps({"target": target, "resolve_names": False, **fields})
    return ["POST", "/traces", {"Content-Type": "application/json", "Prefer": "wait=60"}, body]
