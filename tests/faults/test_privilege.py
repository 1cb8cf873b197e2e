"""Without raw sockets the real mtr-packet must not be used: the real daemon, short of the capability in every way."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from faults.service import Service, serve, until
from tracerouted.mtrpacket import find_binary

#: Promise: the reason is logged so soon, with what to do about it.
LOGGED_S = 5.0
#: How long it is looked whether it becomes ready after all.
WATCHED_S = 6.0
REMEDY = "setcap cap_net_raw+ep"
PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all")
#: How the daemon is run, whether its mtr-packet has the file capability, whether anybody may open datagram sockets
#: for ICMP, and what the reason must say.
WAYS = {
    "nobody, no capability": (NOBODY, False, False, "Failure to open IPv"),
    "nobody, no_new_privs": ((*NOBODY, "--no-new-privs"), True, False, "Failure to open IPv"),
    "root without it": (("setpriv", "--bounding-set=-net_raw"), True, False, "Operation not permitted"),
    "datagram sockets": (NOBODY, False, True, "no raw sockets"),
}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give capabilities away"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)"),
]


@contextmanager
def binary(folder: Path, capable: bool) -> Iterator[str]:
    """A copy of mtr-packet, with CAP_NET_RAW as its file capability or with none."""
    folder.mkdir()
    path = shutil.copy(find_binary(), folder)
    if capable:
        revision_2_effective, net_raw = 0x02000001, 1 << 13  # capabilities(7), struct vfs_cap_data
        os.setxattr(path, "security.capability", struct.pack("<5I", revision_2_effective, net_raw, 0, 0, 0))
    yield path


@pytest.fixture
def ping_groups() -> Iterator[None]:
    """Puts the namespace's setting back."""
    before = PING_GROUPS.read_text()
    yield
    PING_GROUPS.write_text(before)


def reasons(service: Service) -> dict[str, tuple[str, float]]:
    """Per family, the reason logged for not being able to trace, and how many seconds after it began to listen."""
    log = service.log()
    begun = next(at(line) for line in log if "listening" in line["message"])
    told = [line for line in log if line["level"] == "warn" and REMEDY in line["message"]]
    return {line["family"]: (line["message"], at(line) - begun) for line in reversed(told)}


def at(line: dict[str, Any]) -> float:
    """When a line was logged."""
    return datetime.fromisoformat(line["time"]).timestamp()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("open_to_all", [False, True], ids=["closed", "datagram"])
def test_never_ready(open_to_all: bool, ping_groups: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Never ready, never a trace accepted; the reason is logged within 5 s, and what to do."""
    PING_GROUPS.write_text("0 65534" if open_to_all else "1 0")
    ways = {name: way for name, way in WAYS.items() if way[2] is open_to_all}
    with ExitStack() as running:
        folder = Path(running.enter_context(_readable_folder()))
        services = {}
        for name, (command, capable, _, _) in ways.items():
            path = running.enter_context(binary(folder / name.replace(" ", "-"), capable))
            services[name] = running.enter_context(serve(command, mtr_packet=path))
        for name, service in services.items():
            listening = until(lambda s=service: any("listening" in line["message"] for line in s.log()), 20)
            assert listening is not None, f"{name}: {service.log()}"
        begun = time.monotonic()
        while time.monotonic() - begun < WATCHED_S:
            for name, service in services.items():
                assert {"ipv4": False, "ipv6": False} == service.ready(), name
                refused = service.ask("POST", "/traces", {"target": "44.1.1.100"})
                assert 503 == refused.status, name
                assert 1 <= int(refused.headers["Retry-After"]), name
                assert "/problems/not-ready" == json.loads(refused.body)["type"], name
            time.sleep(0.2)
        for name, service in services.items():
            said = reasons(service)
            assert {"ipv4", "ipv6"} == set(said), (name, service.log())
            for reason, after_s in said.values():
                assert ways[name][3] in reason, name
                assert after_s <= LOGGED_S, name
            slowest = max(after_s for _, after_s in said.values())
            with capsys.disabled():
                sys.stdout.write(f"\n{name}: not ready, and why, logged after {slowest:.2f} s\n")
            assert [] == json.loads(service.ask("GET", "/traces").body)["traces"]


@contextmanager
def _readable_folder() -> Iterator[str]:
    """A folder that everybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield folder
