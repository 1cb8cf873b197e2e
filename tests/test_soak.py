"""The soak of `make soak`, in small: clients of every kind, an mtr-packet killed, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import NO_NAMESPACE

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(bool(NO_NAMESPACE), reason=f"no simulated internet: {NO_NAMESPACE}")
@pytest.mark.skipif(not all(map(shutil.which, ("mtr-packet", "setpriv"))), reason="needs mtr-packet and util-linux")
def test_a_small_soak() -> None:
    """Some hundred traces by all kinds of clients keep every promise, and the figures are printed."""
    command = [sys.executable, "-m", "bench.soak", "--traces", "150", "--kept", "50", "--retention", "3"]
    done = subprocess.run(
        [*command, "--growth", "0.3"],  # so short a warm-up has not filled what is bounded
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "0 promises broken" in done.stdout
    assert "mtr-packet      killed" in done.stdout
