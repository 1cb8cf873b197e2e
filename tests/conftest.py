"""Every test runs in a network namespace of its own, cut off from any real network; `netsim` labs live in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from netsim import Lab, NamespaceUnavailable, namespace

settings.register_profile("nightly", max_examples=2000)

try:
    # At import: before any thread exists that would stay behind in the real network.
    namespace.isolate()
    NO_NAMESPACE = ""
except NamespaceUnavailable as problem:
    NO_NAMESPACE = str(problem)


@pytest.fixture(scope="session")
def internet() -> Iterator[Lab]:
    """The simulated internet with all bundled scenarios, shared by the whole session; see `lab`."""
    if NO_NAMESPACE:
        pytest.skip(f"no simulated internet: {NO_NAMESPACE}")
    if shutil.which("mtr-packet") is None:
        pytest.skip("no simulated internet: mtr-packet is not installed")
    try:
        lab = Lab.start()
    except NamespaceUnavailable as problem:
        pytest.skip(f"no simulated internet: {problem}")
    with lab:
        yield lab


@pytest.fixture
def lab(internet: Lab) -> Lab:
    """The simulated internet with counters at zero and all loss patterns, rate limits and phases at their start."""
    internet.resume()
    internet.reset()
    return internet


@pytest.fixture
def nobody() -> list[str]:
    """What makes a command that of an ordinary user, who can use this checkout and its interpreter."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv (util-linux) to become somebody else")
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tried = subprocess.run([*command, sys.executable, "-c", "import tracerouted"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this checkout or its interpreter is closed to other users: {tried.stderr.splitlines()[-1]}")
    return command


@pytest.fixture
def open_tun() -> Iterator[str]:
    """A TUN device node that everybody may open, as most distributions have it."""
    folder = tempfile.mkdtemp(prefix="netsim-tun-")
    path = f"{folder}/tun"
    try:
        Path(folder).chmod(0o755)
        os.mknod(path, 0o666 | 0o020000, os.makedev(10, 200))
        Path(path).chmod(0o666)
        os.close(os.open(path, os.O_RDWR))
        yield path
    except OSError as problem:
        pytest.skip(f"cannot make a TUN device node that everybody may open: {problem}")
    finally:
        shutil.rmtree(folder)
