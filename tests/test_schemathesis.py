"""The service against its contract, by schemathesis: what it sends is drawn from `/openapi.json` alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from netsim import Lab

#: What strangers' politeness would refuse, so that only what is wrong with a request is a reason to refuse it.
GENEROUS = {
    "MAX_RUNNING": "2000",
    "MAX_QUEUED": "100000",
    "PROBES_PER_SECOND": "100000",
    "TARGET_PROBES_PER_SECOND": "10000",
    "TRACES_PER_PREFIX": "1000",
    # Addresses drawn at random lie anywhere.
    "ALLOW_TARGETS": "0.0.0.0/0 ::/0",
}
MOST_S = 30


@contextmanager
def serving(log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The daemon, ready, writing its log to a file; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {f"TRACEROUTED_{name}": value for name, value in GENEROUS.items()}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracerouted", "serve", "--listen", f"127.0.0.1:{port}"],
            env=os.environ | variables,
            stderr=file,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{address}/readyz") as answer:
                if all(family["ready"] for family in json.load(answer)["families"].values()):
                    break
            time.sleep(0.05)
        yield address, process
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.timeout(240)
def test_the_service_keeps_its_contract(internet: Lab, tmp_path: Path) -> None:
    """Valid and invalid requests: every answer is one the contract lists, by status, type, fields and schema; nothing
    invalid is taken, nothing valid refused, nothing is a fault of the service or logged as one."""
    program = shutil.which("schemathesis", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("no schemathesis: pip install schemathesis")
    log = tmp_path / "log"
    with serving(log) as (address, process):
        done = subprocess.run(
            [
                *(program, "run", f"{address}/openapi.json"),
                *("--checks", "all", "--mode", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--seed", "1", "--max-time", str(MOST_S), "--request-timeout", "30"),
                *("--generation-database", "none", "--no-color", "--output-sanitize", "false"),
                "--continue-on-failure",
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
        )
        assert process.poll() is None, "the service ended"
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [] == [line for line in lines if line["level"] == "error" or "failure" in line]
