"""Every setting does what it says: for each a test at its edge, of the whole daemon as `app.make_service` puts it
together from that setting.

Only what is outside the process is imagined: mtr-packet, the name servers, the clients, and time. A test takes the
setting's name; one that has none is missed. Each compares with what happens without the setting, so that a setting
nobody reads fails its test.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from attrs import fields
from click.testing import CliRunner
from twisted.internet.address import IPv4Address
from twisted.names import dns

from fake_http import Answer, Connection, Service, json_body
from fakes import FakeMtr, ProcessClock
from naming.scripted_dns import VirtualNetwork, Zone, a, ptr, silent
from naming.test_asnfile import MAXMIND, write
from tracerouted import cli, library
from tracerouted.app import http_limits, make_service
from tracerouted.http import HttpLimits
from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.settings import SettingError, Settings

START = 1_700_000_000
#: Public, and each in a prefix of its own.
TARGETS = [f"44.3.{number}.1" for number in range(100)]
TARGET = TARGETS[0]
SERVER = "192.0.2.53"
ROUTERS = FakeMtr(hops=("44.9.0.1", "44.9.0.2", "44.9.0.3"))
EVENTS, TEXT = {"Accept": "text/event-stream"}, {"Accept": "text/plain"}


class Reactor(ProcessClock, VirtualNetwork):
    """Time, processes, UDP, and ports that are listened on."""

    def __init__(self, mtr: Callable[[], FakeMtr]) -> None:
        super().__init__(mtr)
        self.listening: list[tuple[str, int, Any]] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        self.listening.append((interface, port, factory))
        return SimpleNamespace(getHost=lambda: IPv4Address("TCP", interface, port), stopListening=lambda: None)


class World:
    """A whole daemon, started with some settings as an operator writes them."""

    def __init__(self, mtr: FakeMtr = ROUTERS, **settings: str) -> None:
        self.mtr = FakeMtr(mtr.hops, faults=mtr.faults)
        self.reactor = Reactor(lambda: self.mtr)
        self.reactor.servers[SERVER, 53] = silent
        given = {"mtr_packet": "/bin/sh", "dns_servers": SERVER, **settings}
        loaded = Settings.load({}, {f"TRACEROUTED_{name.upper()}": text for name, text in given.items()})
        with patch.object(library, "source_address", lambda target: "192.0.2.7"):
            self.daemon = make_service(loaded, self.reactor, lambda: START + self.reactor.seconds())
        self.daemon.startService()
        self.http = Service(self.reactor.listening[0][2], None, self.reactor)
        self.wait(0.1)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.run(seconds, 0.02)

    def post(self, target: str = TARGET, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        """Ask for a trace, and have the answer at once."""
        document = {"target": target, "probes": 1, "resolve_names": False, **more}
        return self.http.ask("POST", "/traces", *json_body(document, headers or {}))

    def stream(self, target: str = TARGET, reading: bool = True, **more: Any) -> Connection:
        """Ask for a trace as events."""
        connection = self.http.connect()
        connection.transport.reading = reading
        document = {"target": target, "probes": 1, "resolve_names": False, **more}
        connection.request("POST", "/traces", *json_body(document, EVENTS))
        return connection

    def trace(self, target: str = TARGET, **more: Any) -> dict[str, Any]:
        """A trace at its end."""
        path = self.post(target, **more).headers["location"]
        self.wait(3)
        return self.read(path)

    def read(self, path: str) -> dict[str, Any]:
        """A trace as it stands."""
        found: dict[str, Any] = self.http.get(path).json
        return found

    def statuses(self, answers: list[Answer]) -> list[str]:
        return [self.read(answer.headers["location"])["status"] for answer in answers]

    @property
    def probes(self) -> list[dict[str, str]]:
        """The probes that left, self-tests aside."""
        found = []
        for line in self.mtr.commands:
            words = line.decode().split()
            if words[1] == "send-probe" and words[3] not in ("127.0.0.1", "::1", "x"):
                found.append(dict(zip(words[2::2], words[3::2], strict=True)))
        return found


SILENT = FakeMtr(hops=(None,) * 70)


def detail(answer: Answer, status: int, setting: str) -> None:
    """A refusal says so and names the setting."""
    assert status == answer.status
    assert f"TRACEROUTED_{setting}" in answer.json["detail"]


# --- who listens, and to whom ------------------------------------------------------------------------------------


def test_listen() -> None:
    """Each address is listened on."""
    world = World(listen="127.0.0.1:81,0.0.0.0:8082")
    assert [("127.0.0.1", 81), ("0.0.0.0", 8082)] == [(host, port) for host, port, _ in world.reactor.listening]


def test_mtr_packet() -> None:
    """This program is started for both families, and no other."""
    assert ["/bin/cat"] * 2 == [path for path, *_ in World(mtr_packet="/bin/cat").reactor.spawn_arguments]


def test_allow_targets() -> None:
    """What it covers is traced, its neighbour is refused."""
    world = World(allow_targets="10.0.0.0/24")
    assert 202 == world.post("10.0.0.255").status
    detail(world.post("10.0.1.0"), 403, "ALLOW_TARGETS")


def test_deny_targets() -> None:
    """What it covers is refused, its neighbour is traced."""
    world = World(deny_targets="44.3.0.0/24")
    detail(world.post("44.3.0.255"), 403, "DENY_TARGETS")
    assert 202 == world.post("44.3.1.0").status


# --- how many traces ---------------------------------------------------------------------------------------------


def test_max_running() -> None:
    """One more waits."""
    world = World(SILENT, max_running="2")
    assert ["running", "running", "queued"] == world.statuses([world.post(target) for target in TARGETS[:3]])


@pytest.mark.parametrize("most", [0, 1, 3])
def test_max_queued(most: int) -> None:
    """So many wait; one more is refused, and none is while a place to run is free."""
    world = World(SILENT, max_running="2", max_queued=str(most))
    for target in TARGETS[: 2 + most]:
        assert 202 == world.post(target).status
    refusal = world.post(TARGETS[-1])
    detail(refusal, 503, "MAX_QUEUED")
    assert int(refusal.headers["retry-after"]) >= 1


def test_max_kept() -> None:
    """So many can be read; with one more the oldest is gone."""
    world = World(max_kept="2")
    paths = [world.trace(target)["links"]["self"] for target in TARGETS[:3]]
    assert [404, 200, 200] == [world.http.get(path).status for path in paths]


def test_max_kept_bytes() -> None:
    """What does not fit goes, but for the last: whoever waited for it can read it."""
    for room, expected in (("0", [404, 404, 200]), ("2KiB", [404, 200, 200]), ("1MiB", [200, 200, 200])):
        world = World(max_kept_bytes=room)
        paths = [world.trace(target)["links"]["self"] for target in TARGETS[:3]]
        assert expected == [world.http.get(path).status for path in paths]
        waiting = world.http.connect()
        waiting.request("POST", "/traces", *json_body({"target": TARGET, "probes": 1}, {"Prefer": "wait=20"}))
        world.wait(10)
        assert (201, "completed") == (waiting.answer().status, waiting.answer().json["status"])


def test_retention_s() -> None:
    """A trace is there until its time is over, and gone after."""
    world = World(retention_s="60")
    path = world.post().headers["location"]
    world.wait(59)
    assert 200 == world.http.get(path).status
    world.wait(3)
    assert 404 == world.http.get(path).status


def test_traces_per_prefix() -> None:
    """One more to the same prefix waits, and holds up no other."""
    world = World(SILENT, traces_per_prefix="2")
    answers = [world.post(target) for target in ("44.3.0.1", "44.3.0.2", "44.3.0.3", "44.3.1.1")]
    assert ["running", "running", "queued", "running"] == world.statuses(answers)


# --- how many probes ---------------------------------------------------------------------------------------------


def test_probes_per_second() -> None:
    """No more leave, all targets together."""
    world = World(probes_per_second="20")
    for target in TARGETS[:30]:
        world.post(target)
    world.wait(3)
    assert 55 <= len(world.probes) <= 2 + 20 * 3 + 1


def test_target_probes_per_second() -> None:
    """No more leave towards one target after the first hundred, and another does not wait."""
    world = World(target_probes_per_second="20", traces_per_prefix="100")
    for _ in range(20):
        world.post(probes=10, interval_ms=10)
    world.wait(3)
    assert "completed" == world.trace(TARGETS[1])["status"]
    sent = [probe for probe in world.probes if probe["ip-4"] == TARGET]
    assert 100 < len(sent) <= 100 + 20 * 6 + 1


# --- names and numbers -------------------------------------------------------------------------------------------


def named(world: World, **more: Any) -> dict[str, Any]:
    """A trace that wants the names of its responders, at its end."""
    return world.trace(resolve_names=True, **more)


def test_dns_servers() -> None:
    """These servers are asked for the names of targets and of responders, and no others."""
    world = World(dns_servers="192.0.2.54:5353")
    world.reactor.servers["192.0.2.54", 5353] = Zone(
        {("h.test", dns.A): [a("h.test", TARGET)], ("1.0.9.44.in-addr.arpa", dns.PTR): [ptr("r", "r1.test")]}
    )
    trace = named(world, target="h.test")
    assert TARGET == trace["target"]["address"]
    assert {("192.0.2.54", 5353)} == {peer for _, peer in world.reactor.sent}


def test_dns_lookups() -> None:
    """One more waits for its turn, and is told which setting made it wait."""
    for most, sockets in (("1", 2), ("2", 4)):  # a socket for each type of record
        world = World(dns_lookups=most)
        for name in "abc":
            world.post(f"{name}.test")
        world.wait(0.1)
        assert sockets == len(world.reactor.ports)
    world = World(dns_lookups="1")
    path = [world.post(f"{name}.test") for name in "abc"][-1].headers["location"]
    world.wait(5.1)
    assert "1 other look-ups, as many as TRACEROUTED_DNS_LOOKUPS allows" in world.read(path)["error"]


def test_dns_deadline_s() -> None:
    """A look-up is given up when its time is over, not sooner, and the failure names the setting."""
    world = World(dns_deadline_s="2")
    path = world.post("h.test").headers["location"]
    world.wait(1.5)
    assert "queued" == world.read(path)["status"]
    world.wait(0.6)
    trace = world.read(path)
    assert "failed" == trace["status"]
    assert "did not answer within TRACEROUTED_DNS_DEADLINE_S" in trace["error"]
    world = World(dns_deadline_s="2", dns_lookups="1")
    paths = [world.post(f"{name}.test").headers["location"] for name in "ab"]
    world.wait(2.1)
    assert "2 s (TRACEROUTED_DNS_DEADLINE_S)" in world.read(paths[1])["error"]


def test_asn_mmdb(tmp_path: Path) -> None:
    """Responders have the numbers of this file; one that cannot be used is an error that names the setting."""
    path = tmp_path / "asn.mmdb"
    write(path, MAXMIND)
    trace = World(FakeMtr(hops=("192.0.2.1",)), asn_mmdb=str(path)).trace()
    assert {"number": 64500, "name": "EXAMPLE"} == trace["hops"][0]["responders"][0]["asn"]
    path.write_bytes(b"nothing")
    with pytest.raises(SettingError, match="TRACEROUTED_ASN_MMDB"):
        World(asn_mmdb=str(path))


def test_asn_dns() -> None:
    """Name servers are asked for the numbers of responders, by default."""
    for wanted in (True, False):
        world = World(asn_dns=str(wanted))
        zone = world.reactor.servers[SERVER, 53] = Zone()
        assert wanted is world.trace()["request"]["lookup_asn"]
        assert wanted is (("1.0.9.44.origin.asn.cymru.com", dns.TXT) in zone.asked)


# --- what is shown -----------------------------------------------------------------------------------------------


def test_metrics() -> None:
    """They are served or not."""
    for served in (True, False):
        assert served is (200 == World(metrics=str(served)).http.get("/metrics").status)


def test_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log begins with this level."""
    levels: list[str] = []
    monkeypatch.setattr(cli, "start_logging", lambda level, stream: levels.append(level))
    monkeypatch.setattr(cli, "run", lambda settings, make: 0)
    CliRunner().invoke(cli.commands, ["serve"], env={"TRACEROUTED_LOG_LEVEL": "error"})
    assert ["error"] == levels


def test_show_source_address() -> None:
    """It is shown or withheld."""
    for shown in (True, False):
        trace = World(show_source_address=str(shown)).trace()
        assert ("192.0.2.7" if shown else None) == trace["source_address"]


def test_shutdown_s() -> None:
    """A trace may run on for so long after the daemon was told to stop."""
    world = World(SILENT, shutdown_s="3")
    path = world.post(probes=100).headers["location"]
    stopped: list[object] = []
    world.daemon.stopService().addCallback(stopped.append)
    world.wait(2.9)
    assert "running" == world.read(path)["status"]
    world.wait(0.2)
    assert "cancelled" == world.read(path)["status"]
    assert [] == stopped
    world.wait(1)
    assert 1 == len(stopped)


# --- who may -----------------------------------------------------------------------------------------------------


def test_api_keys_file(tmp_path: Path) -> None:
    """Whoever has a key of the file is let in, and nobody else."""
    file = tmp_path / "keys"
    file.write_text(f"alice {sha256(b'secret').hexdigest()}\n")
    world = World(api_keys_file=str(file))
    assert [401, 202] == [world.post(headers=headers).status for headers in ({}, {"Authorization": "Bearer secret"})]


def test_trusted_proxies() -> None:
    """Clients behind such a proxy are told apart; those behind another are not."""
    for proxies, expected in (("192.0.2.0/24", [202, 202]), ("198.51.100.0/24", [202, 429])):
        world = World(create_per_minute="1", trusted_proxies=proxies)
        answers = [world.post(headers={"X-Forwarded-For": f"203.0.113.{n}"}) for n in (1, 2)]
        assert expected == [answer.status for answer in answers]


def test_create_per_minute() -> None:
    """One more is refused until its time comes, and every answer tells what is left."""
    world = World(create_per_minute="2")
    answers = [world.post() for _ in range(3)]
    assert [202, 202, 429] == [answer.status for answer in answers]
    detail(answers[-1], 429, "CREATE_PER_MINUTE")
    assert ['"create";r=1;t=30', '"create";r=0;t=30'] == [answer.headers["ratelimit"] for answer in answers[:2]]
    assert ['"create";q=2;w=60'] * 3 == [answer.headers["ratelimit-policy"] for answer in answers]
    world.wait(int(answers[-1].headers["retry-after"]))
    assert 202 == world.post().status


def test_cors_origins() -> None:
    """Pages of these origins may create traces and read the answers; others are refused, naming the setting."""
    world = World(cors_origins="https://a.test")
    assert "https://a.test" == world.post(headers={"Origin": "https://a.test"}).headers["access-control-allow-origin"]
    detail(world.post(headers={"Origin": "https://b.test"}), 403, "CORS_ORIGINS")


# --- the edge of HTTP --------------------------------------------------------------------------------------------


def test_max_body_bytes() -> None:
    """A body of exactly so many bytes is read, one byte more is too large."""
    world = World(max_body_bytes="256")
    body = json.dumps({"target": TARGET}).encode()
    for size, status in ((256, 202), (257, 413)):
        answer = world.http.post(body.ljust(size))
        assert status == answer.status
    detail(answer, 413, "MAX_BODY_BYTES")


def test_request_deadline_s() -> None:
    """A request that takes longer is refused; the sweep that finds it comes once a second."""
    world = World(request_deadline_s="4")
    connection = world.http.connect()
    connection.send(b"GET /healthz HTTP/1.1\r\n")
    world.wait(3.9)
    assert b"" == connection.received
    world.wait(1.2)
    detail(connection.answer(), 408, "REQUEST_DEADLINE_S")


def test_keep_alive_s() -> None:
    """A connection nobody uses is closed after so long."""
    world = World(keep_alive_s="4")
    connection = world.http.connect()
    connection.request("GET", "/healthz")
    world.wait(3.9)
    assert not connection.closed
    world.wait(1.2)
    assert connection.closed


def test_max_connections() -> None:
    """One more is closed at once."""
    world = World(max_connections="2")
    assert [False, False, True] == [world.http.connect().refused for _ in range(3)]


def test_max_requests_per_connection() -> None:
    """The last one allowed says that the connection closes."""
    connection = World(max_requests_per_connection="2").http.connect()
    for _ in range(2):
        connection.request("GET", "/healthz")
    assert [None, "close"] == [answer.headers.get("connection") for answer in connection.answers()]


def test_max_streams() -> None:
    """One more is refused, whichever way it is asked for; a place given up can be had."""
    world = World(SILENT, max_streams="1")
    first = world.stream()
    for headers in (EVENTS, TEXT):
        detail(world.post(headers=headers), 503, "MAX_STREAMS")
    path = world.post().headers["location"]
    detail(world.http.ask("GET", f"{path}/events", EVENTS), 503, "MAX_STREAMS")
    first.leave()
    assert b"200 OK" in world.stream().received


def stalled(world: World) -> Connection:
    """A reader that reads nothing, of a trace that has sent it some 200 KiB."""
    connection = world.stream(reading=False, probes=100, interval_ms=10)
    world.wait(3)
    return connection


def test_stream_behind_bytes() -> None:
    """A reader that far behind is dropped, one that is not is not."""
    assert stalled(World(stream_behind_bytes="64KiB", stream_stalled_s="100")).transport.aborted
    assert not stalled(World(stream_behind_bytes="1MiB", stream_stalled_s="100")).transport.aborted


def test_stream_stalled_s() -> None:
    """A reader that took nothing for so long is dropped."""
    world = World(stream_stalled_s="10")
    connection = stalled(world)
    world.wait(6.5)
    assert not connection.transport.aborted
    world.wait(3.5)
    assert connection.transport.aborted


def test_heartbeat_s() -> None:
    """A stream with nothing to tell has a comment so often."""
    world = World(SILENT, heartbeat_s="4")
    connection = world.stream(timeout_ms=10_000)
    world.wait(3.9)
    assert b"\n:\n\n" not in connection.received
    world.wait(0.2)
    assert b"\n:\n\n" in connection.received


def test_render_cache_bytes() -> None:
    """A document that fits is made once, one that does not each time."""
    for room, times in (("1MiB", 1), ("0", 2)):
        world = World(render_cache_bytes=room)
        path = world.trace()["links"]["self"]
        with patch.object(MemoryEngine, "get", autospec=True, side_effect=MemoryEngine.get) as made:
            for _ in range(2):
                world.http.get(f"{path}?format=atlas")
        assert times == made.call_count


# --- what is remembered ------------------------------------------------------------------------------------------


def remembered(world: World, table: str) -> bool:
    """Whether the first of two entries put into a table is still there."""
    first, second = ({"Idempotency-Key": f'"{n}"', "X-Forwarded-For": f"203.0.113.{n}"} for n in (1, 2))
    if table == "keys":
        paths = [world.post(headers=headers).headers["location"] for headers in (first, second, first)]
        return paths[0] == paths[2]
    if table == "quotas":
        return [202, 202, 429] == [
            world.post(headers={**h, "Idempotency-Key": f'"{n}"'}).status
            for n, h in enumerate((first, second, first))
        ]
    if table == "path lengths":
        for target in TARGETS[:2]:
            world.trace(target)
        del world.mtr.commands[:]
        world.trace(TARGETS[0])
        return max(int(probe["ttl"]) for probe in world.probes if probe["ttl"] != "64") <= 4
    zone = world.reactor.servers[SERVER, 53] = Zone()
    trace = {"resolve_names": table == "names", "lookup_asn": table == "numbers"}
    for max_ttl in (1, 2, 1):
        world.trace(first_ttl=max_ttl, max_ttl=max_ttl, **trace)
    return 2 == len(zone.asked)


@pytest.mark.parametrize("table", ["keys", "quotas", "path lengths", "names", "numbers"])
def test_max_remembered(table: str) -> None:
    """With room for two entries both are remembered, with room for one only the last is."""
    more = {"create_per_minute": "1"} if table == "quotas" else {}
    found = [
        remembered(World(max_remembered=most, trusted_proxies="192.0.2.0/24", asn_dns="true", **more), table)
        for most in ("1", "2")
    ]
    assert [False, True] == found


# --- all of them -------------------------------------------------------------------------------------------------


def test_every_setting_has_its_test() -> None:
    """Each setting has a test of its name in this file."""
    here = {name for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    assert [] == [each.name for each in fields(Settings) if f"test_{each.name}" not in here]


def test_the_rooms_defaults_are_the_settings() -> None:
    """Whoever uses a room alone gets the limits the daemon has by default."""
    assert HttpLimits() == http_limits(Settings())
    settings = Settings()
    assert EngineLimits() == EngineLimits(
        **{each.name: getattr(settings, each.name) for each in fields(EngineLimits)}
    )
