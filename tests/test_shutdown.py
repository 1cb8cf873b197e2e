"""How the daemon ends: the real one, with traces in every state, readers of every kind, and no child left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from daemon_process import Daemon, daemon, until
from naming.scripted_dns import name_server, silent
from netsim import Lab

SHUTDOWN_S = 4.0
#: What may come on top of that on a busy machine.
MARGIN_S = 15.0
#: Nobody answers there, and it takes much longer than a drain to be sure of that.
SILENT = {"max_ttl": 3, "probes": 50, "interval_ms": 1000, "timeout_ms": 2000, "resolve_names": False}
#: Seconds within which mtr-packet has no probe left to wait for, with as much again to spare.
LAST_PROBE_S = 2 * 2.0 + MARGIN_S

READERS = {
    "events": {"Accept": "text/event-stream"},
    "text": {"Accept": "text/plain"},
    "wait": {"Prefer": "wait=60"},
}
STATES = ("running", "queued", "resolving")


def stop_by_sigterm(process: Any) -> None:
    """What a service manager or a container's runtime does."""
    process.terminate()


def stop_by_ctrl_c(process: Any) -> None:
    """What a terminal does: SIGINT for the whole group, mtr-packet included."""
    os.killpg(process.pid, signal.SIGINT)


def gone(pids: list[int]) -> Callable[[], bool]:
    """Whether none of these processes is there; one that only waits to be buried is not."""

    def is_gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return lambda: all(map(is_gone, pids))


@pytest.fixture
def silent_dns() -> Iterator[str]:
    """A name server that never answers."""
    with name_server(silent) as port:
        yield f"127.0.0.1:{port}"


def statuses(service: Daemon) -> Counter[str]:
    """How many traces there are of each status; a name still being looked up makes one of its own."""
    traces = service.get("/traces?limit=100").json["traces"]
    unresolved = [trace for trace in traces if trace["status"] == "queued" and trace["target"] is None]
    found = Counter(trace["status"] for trace in traces)
    return found - Counter(queued=len(unresolved)) + Counter(resolving=len(unresolved))


def begin_all(service: Daemon, lab: Lab) -> dict[tuple[str, str], HTTPConnection]:
    """Begin a trace for each state and reader, and one that will end during the drain; returned when all are so."""
    readers = {}
    short = {"target": lab.address("plain", "ipv4"), "probes": 5, "interval_ms": 500, "resolve_names": False}
    readers["short", "events"] = service.begin(short, Accept="text/event-stream")
    expected: Counter[str] = Counter(running=1)
    for number, state in enumerate(STATES):
        for last, (reader, headers) in enumerate(READERS.items(), 1):
            target = f"{reader}.silent.test" if state == "resolving" else f"44.3.{number}.{last}"
            readers[state, reader] = service.begin({**SILENT, "target": target}, **headers)
        expected[state] += len(READERS)
        until(lambda: expected == statuses(service), f"{expected}, now {statuses(service)}")
    return readers


def ending(reader: str, connection: HTTPConnection) -> str:
    """How a reader was told that its trace ended: the status, read from the last that came."""
    with connection.getresponse() as response:
        body = response.read().decode()  # raises if the answer was cut off
    if reader == "events":
        *_, identity, name, data = body.rstrip("\n").split("\n")
        assert ("id: ", "event: end") == (identity[:4], name)
        document = json.loads(data.removeprefix("data: "))
    elif reader == "wait":
        assert 201 == response.status
        document = json.loads(body)
    else:
        assert body.endswith(": cancelled\n"), body
        return "cancelled"
    assert document["finished_at"] is not None
    return str(document["status"])


@pytest.mark.parametrize("stop", [stop_by_sigterm, stop_by_ctrl_c])
def test_a_drain(lab: Lab, silent_dns: str, stop: Callable[[Any], None]) -> None:
    """Told to stop it takes nothing new and says so, lets traces end, cancels the rest after SHUTDOWN_S, tells every
    reader how its trace ended, keeps mtr-packet running to the last, and exits with 0, leaving no child."""
    with daemon(max_running="4", shutdown_s=str(SHUTDOWN_S), dns_servers=silent_dns, dns_deadline_s="60") as service:
        readers = begin_all(service, lab)
        children = service.children
        assert 2 == len(children)
        began = time.monotonic()
        stop(service.process)
        until(lambda: service.get("/readyz").status == 503, "unready")

        refusals = [service.get("/readyz"), service.post({"target": "44.3.9.1"})]
        assert [(503, "not-ready")] * 2 == [(refusal.status, refusal.type) for refusal in refusals]
        for refusal in refusals:
            assert "shutting down" in refusal.json["detail"]
            assert int(refusal.headers["retry-after"]) >= 1
            assert "close" == refusal.headers["connection"]
        assert 200 == service.get("/healthz").status
        assert 200 == service.get("/traces").status
        assert children == service.children

        assert 0 == service.process.wait(SHUTDOWN_S + MARGIN_S)
        assert SHUTDOWN_S <= time.monotonic() - began
        assert gone(children)()
        endings = {key: ending(key[1], connection) for key, connection in readers.items()}
        assert {key: "completed" if key[0] == "short" else "cancelled" for key in readers} == endings
        said = [line["message"] for line in service.log]
        last = said[next(number for number, words in enumerate(said) if words.startswith("stopping after SIG")) + 1 :]
        assert [f"{family}: cannot trace: it was told to stop" for family in ("ipv4", "ipv6")] == sorted(last)


def test_nothing_to_wait_for(internet: Lab) -> None:
    """Without traces the end does not wait for SHUTDOWN_S."""
    with daemon(shutdown_s="3600") as service:
        children = service.children
        service.process.terminate()
        assert 0 == service.process.wait(MARGIN_S)
        assert gone(children)()


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (None, signal.SIGKILL)]
)
def test_an_end_at_once(internet: Lab, first: signal.Signals | None, second: signal.Signals) -> None:
    """A second signal, or SIGKILL, ends the daemon in the middle of its traces, and mtr-packet goes when its last
    probe has timed out."""
    with daemon(shutdown_s="3600") as service:
        for target in ("44.3.1.1", "2a10:44:3000::1"):
            service.post({**SILENT, "target": target})
        children = service.children
        assert 2 == len(children)
        if first is not None:
            os.killpg(service.process.pid, first) if first is signal.SIGINT else service.process.send_signal(first)
            until(lambda: service.get("/readyz").status == 503, "unready")
        service.process.send_signal(second)
        assert (-second if second is signal.SIGKILL else 128 + second) == service.process.wait(MARGIN_S)
        until(gone(children), "no child left", LAST_PROBE_S)
