"""The exposition: its formats, labels and size; and the daemon's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from metrics_world import TARGET, World, busy

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"


@pytest.fixture
def world() -> World:
    """A service that has done nothing yet."""
    return World()


def test_formats(world: World) -> None:
    """Text is the default; Prometheus's own Accept gets OpenMetrics, which its strict parser reads; both say the
    same."""
    world.trace()
    world.text()
    plain, open_metrics = world.service.get("/metrics"), world.service.get("/metrics", Accept=OPENMETRICS)
    assert "text/plain; version=0.0.4; charset=utf-8" == plain.headers["content-type"]
    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == open_metrics.headers["content-type"]
    assert "no-store" == plain.headers["cache-control"]
    assert open_metrics.body.endswith(b"# EOF\n")
    one = {sample.name for family in parse(plain.body.decode()) for sample in family.samples}
    other = {sample.name for family in parse_openmetrics(open_metrics.body.decode()) for sample in family.samples}
    assert one == other
    assert 406 == world.service.get("/metrics", Accept="image/png").status
    assert b"" == world.service.ask("HEAD", "/metrics").body
    assert 405 == world.service.ask("POST", "/metrics").status


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1", "text/plain"),
        ("application/openmetrics-text; version=0.0.1", "application/openmetrics-text"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4",
            "application/openmetrics-text",
        ),
    ],
)
def test_accept(world: World, accept: str, expected: str) -> None:
    """The format is the one Accept likes best, whatever version it names."""
    assert expected == world.service.get("/metrics", Accept=accept).headers["content-type"].partition(";")[0]


def test_no_target_in_any_label() -> None:
    """Neither an address, a name, a path nor an id of a trace is anywhere in the exposition."""
    world = busy()
    ids = [trace.id for trace in world.engine.list(limit=100).traces]
    text = world.text()
    assert len(ids) > 5
    for word in ("203.0.114", "2606", "example", "192.0.2", "2001:db8", "10.0.0", *ids):
        assert word not in text
    labels = {label for family in parse(text) for sample in family.samples for label in sample.labels}
    assert labels <= {
        *("status", "stop_reason", "protocol", "family", "state", "fault", "method", "route", "le", "reason"),
        *("type", "outcome", "kind", "version", "python_version", "twisted_version"),
    }


def test_a_scrape_stays_small() -> None:
    """A scrape has some hundred lines, however much there was to do."""
    world = busy()
    before = world.text()
    for number in range(30):
        trace_id = world.trace(TARGET.format(number), seconds=1)
        world.service.get(f"/traces/{trace_id}")
    assert len(before.splitlines()) == len(world.text().splitlines()) < 500
    assert len(before) < 60_000


def test_two_services(world: World) -> None:
    """Two services in one process count for themselves."""
    other = World()
    world.trace()
    assert other.value("probes_sent_total", family="ipv4") == 0
    assert (world.value("probes_sent_total", family="ipv4") or 0) > 0


# --- the daemon -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    """Start the real service with some settings; its base address. Everything is stopped at the end."""
    processes = []

    def start(**variables: str) -> str:
        port = free_port()
        environ = {"PATH": os.environ["PATH"], "TRACEROUTED_LISTEN": f"127.0.0.1:{port}", **variables}
        command = [str(Path(sys.executable).parent / "tracerouted"), "serve"]
        log = open(tmp_path / f"{port}.log", "wb")  # noqa: SIM115
        processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        log.close()
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            except OSError:
                assert processes[-1].poll() is None, (tmp_path / f"{port}.log").read_text()
                time.sleep(0.05)
            else:
                break
        return f"http://127.0.0.1:{port}"

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_the_daemon_serves_metrics(daemon: Any) -> None:
    """The daemon's own scrape has the build, the process and the families."""
    text = urllib.request.urlopen(f"{daemon()}/metrics", timeout=10).read().decode()
    names = {family.name for family in parse(text)}
    assert {"tracerouted_build_info", "tracerouted_ready", "process_resident_memory_bytes"} <= names


def test_metrics_can_be_withheld(daemon: Any) -> None:
    """With TRACEROUTED_METRICS=false there is no /metrics."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{daemon(TRACEROUTED_METRICS='false')}/metrics", timeout=10)


def test_a_file_of_as_numbers_that_cannot_be_used() -> None:
    """A missing file of AS numbers ends the start with one line that names the setting and the reason."""
    command = [str(Path(sys.executable).parent / "tracerouted"), "serve", "--asn-mmdb", "/nonexistent.mmdb"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 1 == ended.returncode
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert "TRACEROUTED_ASN_MMDB='/nonexistent.mmdb': No such file or directory" in line["message"]


def test_as_numbers_by_default_where_there_is_a_source(daemon: Any, tmp_path: Path) -> None:
    """With a source of AS numbers, a request that does not say has them in its hops; without one it asks for none."""
    writer = MMDBWriter(4, "GeoLite2-ASN")
    loopback = {"autonomous_system_number": 64500, "autonomous_system_organization": "LOOPBACK"}
    writer.insert_network(IPSet(["127.0.0.0/8"]), loopback)
    writer.to_db_file(str(tmp_path / "asn.mmdb"))
    found = {"number": 64500, "name": "LOOPBACK"}
    for variables, asked, asn in (({"TRACEROUTED_ASN_MMDB": f"{tmp_path}/asn.mmdb"}, True, found), ({}, False, None)):
        base = daemon(TRACEROUTED_ALLOW_TARGETS="127.0.0.0/8", **variables)
        body = b'{"target": "127.0.0.1", "resolve_names": false}'
        headers = {"Content-Type": "application/json", "Prefer": "wait=10"}
        for _ in range(100):
            try:
                request = urllib.request.Request(f"{base}/traces", body, headers)
                trace = json.load(urllib.request.urlopen(request, timeout=30))
                break
            except urllib.error.HTTPError as refused:
                if json.load(refused)["type"] != "/problems/not-ready":
                    raise
                time.sleep(0.1)
        else:
            pytest.skip("mtr-packet is not able to trace here")
        assert asked is trace["request"]["lookup_asn"]
        assert [[asn]] == [[responder["asn"] for responder in hop["responders"]] for hop in trace["hops"]]
