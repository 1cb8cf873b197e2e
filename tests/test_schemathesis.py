"""The service against its contract, by schemathesis: what it sends is drawn from `/openapi.json` alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netsim import Lab
from serving import serving

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


@pytest.mark.timeout(240)
def test_the_service_keeps_its_contract(internet: Lab, tmp_path: Path) -> None:
    """Valid and invalid requests: every answer is one the contract lists, by status, type, fields and schema; nothing
    invalid is taken, nothing valid refused, nothing is a fault of the service or logged as one."""
    program = shutil.which("schemathesis", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("no schemathesis: pip install schemathesis")
    with serving(tmp_path, **GENEROUS) as daemon:
        done = subprocess.run(
            [
                *(program, "run", f"{daemon.address}/openapi.json"),
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
    assert done.returncode == 0, done.stdout + done.stderr
    (total,) = re.findall(r"Selected: [0-9]+/([0-9]+)", done.stdout)
    assert [total] == re.findall(r"Tested: ([0-9]+)", done.stdout)
    assert [] == [line for line in daemon.log if line["level"] == "error" or "failure" in line]
