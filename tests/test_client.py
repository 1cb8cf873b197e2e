"""The client: over the real site in memory, and over the real daemon with a connection that breaks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, _SynchronousProducer
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource

from fake_engine import FakeEngine, probe_of
from netsim import Lab
from tracerouted.client import Client, NotFound, NotUnderstood, Refused, ServiceUnreachable, TryLater
from tracerouted.http import HttpLimits, make_site
from tracerouted.jobs.engine import Busy, TargetNotAllowed
from tracerouted.model import (
    EndEvent,
    Family,
    HopEvent,
    Outcome,
    Protocol,
    Status,
    StatusEvent,
    StopReason,
    TraceEvent,
    TraceRequest,
)
from web.daemon import Proxy, daemon

SERVER = "http://localhost"


def start(doing: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(doing)


class Recorder(RequestTraversalAgent):
    """Keeps what was asked, and can break every connection."""

    def __init__(self, site: Any) -> None:
        super().__init__(None)
        self._serverFactory = site
        self.asked: list[tuple[str, dict[str, str]]] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Any:
        fields = {name.decode().lower(): values[0].decode() for name, values in headers.getAllRawHeaders()}
        self.asked.append((f"{method.decode()} {uri.decode().removeprefix(SERVER)}", fields))
        return super().request(method, uri, headers, bodyProducer)

    def cut(self) -> None:
        for pump in self._pumps:
            pump.serverIO.abortConnection()
        self.flush()


class InMemory(SynchronousTestCase):
    """A client and the real site on one clock, with no sockets between them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = FakeEngine(self.clock)
        site = make_site(
            self.engine, clock=self.clock, wall=self.clock.seconds, limits=HttpLimits(heartbeat_s=15), lookup_asn=True
        )
        self.agent = Recorder(site)
        self.client = self.made()

    def made(self, **options: Any) -> Client:
        http = HTTPClient(self.agent, data_to_body_producer=_SynchronousProducer)
        return Client(SERVER + "/", self.clock, http=http, **options)

    def settle(self, seconds: float = 0.0) -> None:
        """Time passes, and everything sent arrives."""
        self.clock.advance(seconds)
        for _ in range(3):
            self.agent.flush()
            self.clock.advance(0)

    def result(self, doing: Coroutine[Deferred[Any], Any, Any]) -> Any:
        running = start(doing)
        self.settle()
        return self.successResultOf(running)

    def following(self, trace_id: str, after: int = 0, **options: Any) -> tuple[list[TraceEvent], Deferred[None]]:
        """The events as they come, and when they are over."""
        found: list[TraceEvent] = []

        async def follow() -> None:
            async for event in self.made(**options).events(trace_id, after):
                found.append(event)

        running = start(follow())
        self.settle()
        return found, running

    def events_of(self, trace_id: str) -> list[TraceEvent]:
        return [event for event, _ in self.engine.jobs[trace_id].events]

    # --- traces ---

    def test_create_and_get(self) -> None:
        """A created trace is a `Trace`, and `get` reads it as it stands."""
        created = self.result(self.client.create("example.net", protocol=Protocol.TCP, port=443, family=Family.IPV4))
        request = TraceRequest(
            target="example.net", protocol=Protocol.TCP, port=443, family=Family.IPV4, lookup_asn=True
        )
        assert [request] == self.engine.submitted
        assert ("trace001", Status.QUEUED, request) == (created.id, created.status, created.request)
        self.engine.start("trace001")
        self.engine.probe("trace001", 1, probe_of("192.0.2.1", 512))
        assert self.engine.get("trace001") == self.result(self.client.get("trace001"))

    def test_the_service_fills_in_what_is_left_out(self) -> None:
        """Fields that are not given are not sent: the service's own defaults hold. A family of None is any."""
        self.result(self.client.create("example.net", family=None))
        assert [TraceRequest(target="example.net", lookup_asn=True)] == self.engine.submitted

    def test_cancel(self) -> None:
        """A cancelled trace is gone, for the client as for the engine."""
        self.result(self.client.create("example.net"))
        assert self.result(self.client.cancel("trace001")) is None
        assert {} == self.engine.jobs
        for doing in (self.client.get, self.client.wait, self.client.cancel):
            running = start(doing("trace001"))
            self.settle()
            assert 404 == self.failureResultOf(running, NotFound).value.status

    def test_an_id_is_one_segment(self) -> None:
        """Whatever an id is, it cannot become another path."""
        running = start(self.client.get("../readyz?x"))
        self.settle()
        self.failureResultOf(running, Refused)
        assert "GET /traces/..%2Freadyz%3Fx" == self.agent.asked[0][0]

    def test_wait(self) -> None:
        """`wait` polls long, again and again, until the trace has ended."""
        self.result(self.client.create("example.net"))
        waiting = start(self.client.wait("trace001"))
        self.settle()
        for _ in range(30):
            self.settle(1)
        self.assertNoResult(waiting)
        self.engine.finish("trace001")
        self.settle()
        assert StopReason.REACHED is self.successResultOf(waiting).stop_reason
        assert ["POST /traces", "GET /traces/trace001", "GET /traces/trace001"] == [
            asked for asked, _ in self.agent.asked
        ]
        assert "wait=30" == self.agent.asked[1][1]["prefer"]

    # --- refusals ---

    def test_an_invalid_request(self) -> None:
        """Everything the problem document says is in the error."""
        running = start(self.client.create("127.1", probes=0))
        self.settle()
        refused = self.failureResultOf(running, Refused).value
        assert (422, "invalid-request", "/problems/invalid-request", "/traces") == (
            refused.status,
            refused.kind,
            refused.type,
            refused.instance,
        )
        assert ["/target", "/probes"] == [problem.pointer for problem in refused.errors]
        assert refused.title
        assert refused.detail == str(refused)
        assert refused.retry_after is None

    def test_a_target_that_is_not_allowed(self) -> None:
        """Another refusal, told by its kind."""
        self.engine.refuse = TargetNotAllowed("not this one")
        running = start(self.client.create("10.0.0.1"))
        self.settle()
        refused = self.failureResultOf(running, Refused).value
        assert ("target-not-allowed", "not this one") == (refused.kind, refused.detail)

    def test_busy(self) -> None:
        """Without patience a busy service is an error that says when to come back."""
        self.engine.refuse = Busy("full", 3)
        running = start(self.client.create("example.net"))
        self.settle()
        later = self.failureResultOf(running, TryLater).value
        assert ("busy", 503, 3.0) == (later.kind, later.status, later.retry_after)

    def test_patience_with_a_busy_service(self) -> None:
        """With patience it is asked again, not before its Retry-After, and all attempts carry one Idempotency-Key."""
        self.engine.refuse = Busy("full", 3)
        running = start(self.client.create("example.net", patience_s=20))
        self.settle()
        self.settle(2.9)
        assert 1 == len(self.agent.asked)
        self.engine.refuse = None
        self.settle(0.2)
        assert "trace001" == self.successResultOf(running).id
        keys = [headers["idempotency-key"] for _, headers in self.agent.asked]
        assert 2 == len(keys)
        assert 1 == len(set(keys))

    def test_patience_ends(self) -> None:
        """When the next attempt would come too late the last failure is raised."""
        self.engine.refuse = Busy("full", 3)
        running = start(self.client.create("example.net", patience_s=7))
        for _ in range(8):
            self.settle(1)
        self.failureResultOf(running, TryLater)
        assert 3 == len(self.agent.asked)

    # --- events ---

    def script(self) -> str:
        """A running trace with a hop."""
        trace_id: str = self.engine.submit(TraceRequest(target="example.net")).id
        self.engine.start(trace_id)
        self.engine.probe(trace_id, 1, probe_of("192.0.2.1", 512), probe_of(None))
        return trace_id

    def test_events(self) -> None:
        """Events come as they happen, as the engine's own, and stop with the end."""
        trace_id = self.script()
        found, running = self.following(trace_id)
        assert self.events_of(trace_id) == found
        self.engine.probe(trace_id, 2, probe_of("192.0.2.9", 900, Outcome.REPLY))
        self.settle()
        assert HopEvent is type(found[-1])
        self.assertNoResult(running)
        self.engine.finish(trace_id)
        self.settle()
        assert self.events_of(trace_id) == found
        assert EndEvent is type(found[-1])
        self.successResultOf(running)

    def test_after(self) -> None:
        """`after` leaves out what is known; after the end there is nothing, and no error."""
        trace_id = self.script()
        self.engine.finish(trace_id)
        found, running = self.following(trace_id, after=2)
        assert self.events_of(trace_id)[2:] == found
        self.successResultOf(running)
        found, running = self.following(trace_id, after=found[-1].revision)
        assert [] == found
        self.successResultOf(running)

    def test_a_dropped_connection(self) -> None:
        """A stream that breaks is taken up where it broke: nothing is missed, and nothing comes twice."""
        trace_id = self.script()
        found, running = self.following(trace_id)
        for ttl in range(2, 6):
            self.agent.cut()
            self.engine.probe(trace_id, ttl, probe_of(f"192.0.2.{ttl}", 512))
            before = len(found)
            self.settle(0.4)
            assert before == len(found)
            self.settle(0.2)
            assert before + 1 == len(found)
        self.engine.finish(trace_id)
        self.settle()
        self.successResultOf(running)
        assert self.events_of(trace_id) == found
        asked = [headers.get("last-event-id") for _, headers in self.agent.asked]
        assert [None, "4", "5", "6", "7"] == asked

    def test_pauses_grow(self) -> None:
        """Attempts that bring no event come less and less often, until patience ends."""
        trace_id = self.script()
        found, running = self.following(trace_id, patience_s=10)
        times = []
        for tenth in range(110):
            self.agent.cut()
            asked = len(self.agent.asked)
            self.settle(0.1)
            if len(self.agent.asked) > asked:
                times.append(round(tenth / 10 + 0.1, 1))
        assert [0.5, 1.5, 3.5, 7.5] == pytest.approx(times, abs=0.2)
        self.failureResultOf(running, ServiceUnreachable)
        assert self.events_of(trace_id) == found

    def test_heartbeats_keep_it_alive(self) -> None:
        """A trace in which nothing happens for minutes needs no second connection."""
        trace_id = self.script()
        _, running = self.following(trace_id)
        for _ in range(180):
            self.settle(1)
        assert 1 == len(self.agent.asked)
        self.engine.finish(trace_id)
        self.settle()
        self.successResultOf(running)

    def test_silence(self) -> None:
        """A connection on which not even heartbeats arrive is given up for a new one."""
        trace_id = self.script()
        found, running = self.following(trace_id)
        self.agent._pumps.clear()
        self.clock.advance(40)
        self.engine.finish(trace_id)
        self.settle(0.5)
        self.successResultOf(running)
        assert self.events_of(trace_id) == found

    def test_the_trace_is_gone(self) -> None:
        """Events of a trace that was deleted while the connection was broken end with `NotFound`."""
        trace_id = self.script()
        _, running = self.following(trace_id)
        self.agent.cut()
        self.engine.cancel(trace_id)
        self.settle(0.5)
        self.failureResultOf(running, NotFound)

    def test_leaving_early(self) -> None:
        """Leaving the loop closes the connection, and cancels nothing."""
        trace_id = self.script()

        async def first() -> TraceEvent:
            async with aclosing(self.client.events(trace_id)) as events:
                async for event in events:
                    return event
            raise AssertionError

        assert StatusEvent is type(self.result(first()))
        assert [] == self.engine.jobs[trace_id].followers
        assert not self.engine.get(trace_id).status.terminal

    def test_a_slow_reader(self) -> None:
        """What is not taken yet is kept, in order."""
        trace_id = self.script()
        events = self.client.events(trace_id)
        first = self.result(anext(events))
        for number in range(500):
            self.engine.probe(trace_id, 1, probe_of("192.0.2.1", number + 1), keep=1)
            self.settle()
        self.engine.finish(trace_id)
        self.settle()

        async def rest() -> list[TraceEvent]:
            return [event async for event in events]

        assert self.events_of(trace_id) == [first, *self.result(rest())]


class Canned(Resource):
    """Answers everything the same, and keeps the fields it was asked with."""

    isLeaf = True

    def __init__(self, status: int, body: bytes, **headers: str) -> None:
        super().__init__()
        self.status, self.body, self.headers = status, body, headers
        self.asked: dict[str, str] = {}

    def render(self, request: Any) -> bytes:
        self.asked = {name.decode(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()}
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return self.body


def of(resource: Canned, **options: Any) -> Client:
    agent = RequestTraversalAgent(resource)
    return Client(SERVER, Clock(), http=HTTPClient(agent, data_to_body_producer=_SynchronousProducer), **options)


class OtherAnswers(SynchronousTestCase):
    """What is not this service."""

    def test_an_api_key(self) -> None:
        """The key is a bearer token, and is no part of what is printed of a client."""
        resource = Canned(404, b"")
        client = of(resource, api_key="sesame")
        self.failureResultOf(start(client.get("x")), NotFound)
        assert "Bearer sesame" == resource.asked["Authorization"]
        assert "sesame" not in repr(client)

    def test_another_service(self) -> None:
        """A success that is no trace, or no stream of events, is not understood."""
        for body in (b"<html>hello</html>", b"{}", b"[1]", b""):
            self.failureResultOf(start(of(Canned(200, body)).get("x")), NotUnderstood)
        broken = Canned(200, b"id: 1\nevent: status\ndata: {}\n\n")
        self.failureResultOf(start(anext(of(broken).events("x"))), NotUnderstood)

    def test_problems_that_are_none(self) -> None:
        """A refusal without a problem document has its status for a title; odd members are put up with."""
        refused = self.failureResultOf(start(of(Canned(403, b"<html>")).get("x")), Refused).value
        assert (403, "about:blank", "HTTP status 403", ()) == (
            refused.status,
            refused.type,
            refused.title,
            refused.errors,
        )
        for odd in ([], {"errors": 3}, {"errors": [3]}, {"title": 5}, {"type": None}):
            body = json.dumps(odd).encode()
            self.failureResultOf(start(of(Canned(400, body)).get("x")), Refused)

    def test_a_proxy_without_a_service_behind_it(self) -> None:
        """502 and 504 are for later; a Retry-After that is a date is not waited for."""
        for status in (429, 502, 503, 504):
            canned = Canned(status, b"", Retry_After="Fri, 31 Dec 2027 23:59:59 GMT")
            later = self.failureResultOf(start(of(canned).get("x")), TryLater).value
            assert (status, None) == (later.status, later.retry_after)

    def test_redirects_are_not_followed(self) -> None:
        """A key given to one service is not carried to another."""
        refused = self.failureResultOf(start(of(Canned(307, b"", Location="http://other/")).get("x")), Refused)
        assert 307 == refused.value.status

    def test_no_connection(self) -> None:
        """Why there was none is in one line."""

        class Agent:
            def request(self, *_: object) -> Deferred[Any]:
                return fail(ConnectionRefusedError("try\nanother"))

        client = Client(SERVER, Clock(), http=HTTPClient(Agent()))
        error = self.failureResultOf(start(client.get("x")), ServiceUnreachable).value
        assert str(error).startswith("http://localhost: ")
        assert 1 == len(str(error).splitlines())

    def test_no_answer(self) -> None:
        """A service that takes the request and says nothing is unreachable after 30 s."""

        class Agent:
            def request(self, *_: object) -> Deferred[Any]:
                return Deferred()

        clock = Clock()
        running = start(Client(SERVER, clock, http=HTTPClient(Agent())).get("x"))
        clock.advance(29)
        self.assertNoResult(running)
        clock.advance(1)
        assert "no answer within 30 s" in str(self.failureResultOf(running, ServiceUnreachable).value)
        assert [] == clock.getDelayedCalls()

    def test_addresses(self) -> None:
        """Only an http or https address is one."""
        for wrong in ("localhost:8080", "ftp://host", "http://", "http://host/?x", "http://host/#x", ""):
            with pytest.raises(ValueError, match="http://host:port"):
                Client(wrong, Clock())
        assert "https://host/prefix" == Client("https://host/prefix/", Clock()).server


def test_the_documented_program(lab: Lab, tmp_path: Path) -> None:
    """The program in docs/client.md runs, and says what the page says it does."""
    page = (Path(__file__).parent.parent / "docs" / "client.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M)
    script = tmp_path / "program.py"
    script.write_text(program)
    with daemon() as service:
        ended = lab.run([sys.executable, str(script), service, lab.address("plain", "ipv4")])
    assert (0, "") == (ended.returncode, ended.stderr)
    lines = ended.stdout.splitlines()
    assert "reached" == lines[-1]
    assert {"1 2 of 2", "11 2 of 2"} <= set(lines)


class OverTheNetwork(TestCase):
    """The real daemon, in the simulated internet, behind a proxy that breaks connections."""

    timeout = 60

    @pytest.fixture(autouse=True)
    def _service(self, lab: Lab) -> Any:
        with daemon() as address:
            self.lab, self.proxy = lab, Proxy(address)
            yield
            self.proxy.close()

    async def test_a_trace(self) -> None:
        """Create, follow, wait, get, cancel."""
        client = Client(self.proxy.address, reactor)
        created = await client.create(self.lab.address("plain", "ipv4"), resolve_names=False)
        events = [event async for event in client.events(created.id)]
        revisions = [event.revision for event in events]
        assert sorted(set(revisions)) == revisions
        end = events[-1]
        assert isinstance(end, EndEvent)
        assert (True, 11) == (end.trace.reached, len(end.trace.hops))
        assert end.trace == await client.wait(created.id) == await client.get(created.id)
        await client.cancel(created.id)
        with pytest.raises(NotFound):
            await client.get(created.id)

    async def test_dropped_connections(self) -> None:
        """A stream that is cut again and again gives the events of one that never was."""
        client = Client(self.proxy.address, reactor)
        address = self.lab.address("lossy-middle", "ipv4")
        created = await client.create(address, probes=10, interval_ms=100, resolve_names=False)
        found = []
        async for event in client.events(created.id):
            found.append(event)
            if len(found) in (5, 25, 45):
                self.proxy.cut()
        assert 3 == self.proxy.cuts
        assert [event async for event in client.events(created.id)] == found

    async def test_a_service_that_is_gone(self) -> None:
        """When the service does not come back, patience ends with `ServiceUnreachable`."""
        client = Client(self.proxy.address, reactor, patience_s=2)
        created = await client.create(self.lab.address("silent-end", "ipv4"), resolve_names=False)

        async def follow() -> None:
            async for _ in client.events(created.id):
                self.proxy.down = True
                self.proxy.cut()

        with pytest.raises(ServiceUnreachable):
            await follow()

    async def test_back_in_time(self) -> None:
        """A service that comes back before patience ends is followed to the end."""
        client = Client(self.proxy.address, reactor)
        created = await client.create(self.lab.address("silent-end", "ipv4"), resolve_names=False)

        def set_down(down: bool) -> None:
            self.proxy.down = down
            self.proxy.cut()

        deferLater(reactor, 0.3, set_down, True)
        deferLater(reactor, 1.5, set_down, False)
        events = [event async for event in client.events(created.id)]
        assert StopReason.GAP_LIMIT is events[-1].trace.stop_reason  # type: ignore[union-attr]
        assert 2 == self.proxy.cuts
