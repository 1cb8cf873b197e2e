"""The clients: each way to use the service, and a crowd that mixes them.

Every trace that is taken is followed to its end in some way, and its route compared with the simulated internet's.
What is not as promised is a complaint.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from attrs import define, field, frozen

from netsim import Lab, judge
from netsim.truth import Truth
from tracerouted.http.read import EventReader, read_trace
from tracerouted.model import EndEvent, Status, Trace, TraceEvent

from .connection import Answer, Connection

PROTOCOLS = ("icmp", "udp", "tcp")
RTT_TOLERANCE_US = 10_000_000  # the machine may be busy with other things
MOST_EVENT_BYTES = 1 << 20
SLOW_BUFFER_BYTES = 4096

#: Targets whose truth a single trace can miss: answers later than any wait; and a router's port unreachable, which
#: mtr-packet can take for a reset by the target when it reads it off a TCP socket.
UNSURE = ("very-late", "router-port-unreachable")

#: How `judge` complains of loss, which is counted by itself.
_LOSS = " lost of "
#: A trace of a name, whose family lost its prober between the trace's being taken and the name's being resolved.
_NO_PROBER = "cannot be traced now"


@frozen
class Goal:
    """Something to trace whose truth is known whatever else is traced at the same time."""

    spelling: str
    family: str
    protocol: str
    truth: Truth


def goals(lab: Lab) -> Iterator[Goal]:
    """All there are: those with names by their names, too."""
    for scenario in lab.scenarios:
        for target in scenario.targets:
            if target.then or target.name in UNSURE:
                continue
            for family in ("ipv4", "ipv6"):
                for protocol in PROTOCOLS:
                    try:
                        truth = lab.truth(target.name, family, protocol)
                    except KeyError:
                        continue
                    known = [expected for way in truth.ways for expected in way if expected.address is not None]
                    # mtr-packet 0.95 cannot keep an IPv6 UDP flow constant, so the engine refuses it.
                    if (family, protocol) == ("ipv6", "udp") or any(e.lose or e.lossy for e in known):
                        continue
                    yield Goal(truth.address, family, protocol, truth)
                    if scenario.domain:
                        yield Goal(f"{target.name}.{scenario.domain}", family, protocol, truth)


@define(eq=False)
class Crowd:
    """The clients' common memory: what to trace, what was taken and how it went."""

    goals: list[Goal]
    chance: random.Random
    wanted: int = 0
    taken: int = 0
    done: Counter[str] = field(factory=Counter)
    judged: int = 0
    #: probes called lost where nothing is lost
    lost: int = 0
    turned_away: int = 0
    complaints: list[str] = field(factory=list)

    def complain(self, of: str) -> None:
        """Something is not as promised."""
        self.complaints.append(of)

    def expect(self, holds: object, of: str) -> None:
        """Complain unless it holds."""
        if not holds:
            self.complain(of)

    def judge(self, trace: Trace, goal: Goal, kind: str) -> None:
        """Compare a finished trace with the truth."""
        if trace.error is not None and _NO_PROBER in trace.error:
            self.turned_away += 1
            return
        self.judged += 1
        for wrong in judge(trace, goal.truth, rtt_tolerance_us=RTT_TOLERANCE_US):
            if _LOSS in wrong:
                self.lost += 1
            else:
                self.complain(f"{kind}: {goal.spelling} {goal.family} {goal.protocol}: {wrong}")

    async def run(self, traces: int, clients: int) -> None:
        """Let clients come until so many more traces have been taken, and all have left."""
        self.wanted = self.taken + traces
        await asyncio.gather(*(Client(self).run() for _ in range(clients)))


@define(eq=False)
class Client:
    """One client: it does one thing after the other."""

    crowd: Crowd
    _kept: Connection | None = None

    async def run(self) -> None:
        """Until the crowd has what it wanted."""
        crowd = self.crowd
        while crowd.taken < crowd.wanted:
            (kind,) = crowd.chance.choices(list(KINDS), list(KINDS.values()))
            try:
                await kind(self)
                crowd.done[kind.__name__] += 1
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError, KeyError) as broken:
                crowd.complain(f"{kind.__name__}: {type(broken).__name__}: {broken}")
                self.leave()  # an answer that came late would be taken for the next
        self.leave()

    def leave(self) -> None:
        """Close the connection kept open."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    # --- asking ------------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, fields: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One whole answer, on the connection kept open if there is one."""
        if self._kept is None or not self._kept.usable:
            self.leave()
            self._kept = await Connection.open()
        await self._kept.send(method, path, fields or {}, body)
        return await self._kept.whole()

    def request(self) -> tuple[Goal, bytes]:
        """Something to trace, and the body that asks for it."""
        chance, goal = self.crowd.chance, self.crowd.goals[self.crowd.chance.randrange(len(self.crowd.goals))]
        asked = {
            "target": goal.spelling,
            "family": goal.family,
            "protocol": goal.protocol,
            "probes": chance.choice((1, 1, 3)),
            "resolve_names": chance.random() < 0.3,
        }
        return goal, json.dumps(asked).encode()

    async def post(self, body: bytes, **fields: str) -> Answer:
        """Have a trace made; one that is turned away for the time being asks again."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        while True:
            answer = await self.ask("POST", "/traces", {"Content-Type": "application/json", **named}, body)
            if answer.status != 503:
                break
            self.crowd.turned_away += 1
            await asyncio.sleep(0.1)
        self.crowd.taken += answer.status in (201, 202)
        return answer

    async def begun(self) -> tuple[Goal, str]:
        """A trace under way: its goal and path."""
        goal, body = self.request()
        answer = await self.post(body)
        if answer.status != 202:
            raise ValueError(f"POST was answered with {answer.status}: {answer.body[:300]!r}")
        return goal, answer.fields["location"]

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, fields: dict[str, str], body: bytes = b"", buffer_bytes: int | None = None
    ) -> AsyncIterator[Connection]:
        """A connection of its own, whose answer has begun."""
        connection = await Connection.open(buffer_bytes)
        try:
            await connection.send(method, path, fields, body)
            yield connection
        finally:
            connection.close()

    async def events(
        self, path: str, after: int = 0, buffer_bytes: int | None = None, pause_s: float = 0.0
    ) -> AsyncIterator[TraceEvent]:
        """The events of a trace past a revision."""
        fields = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
        async with self.stream("GET", f"{path}/events", fields, buffer_bytes=buffer_bytes) as connection:
            async for event in self.read(connection, after, pause_s):
                yield event

    async def read(self, connection: Connection, after: int, pause_s: float = 0.0) -> AsyncIterator[TraceEvent]:
        """Events from an answer that has begun; each must have the revision after the one before."""
        self.crowd.expect(connection.status in (200, 204), f"a stream was answered with {connection.status}")
        reader = EventReader(MOST_EVENT_BYTES)
        async for piece in connection.pieces():
            for event in reader.feed(piece):
                self.crowd.expect(event.revision == after + 1, f"event {event.revision} came after {after}")
                after = event.revision
                yield event
            await asyncio.sleep(pause_s)

    def ended(self, events: list[TraceEvent], goal: Goal | None, kind: str) -> Trace | None:
        """The trace in the end event, which must come once and last; judged if it has a goal."""
        ends = [event for event in events if isinstance(event, EndEvent)]
        if len(ends) != 1 or events[-1] is not ends[0] or not ends[0].trace.status.terminal:
            self.crowd.complain(f"{kind}: {len(ends)} end events among {len(events)}")
            return None
        if goal is not None:
            self.crowd.judge(ends[0].trace, goal, kind)
        return ends[0].trace

    # --- the ways to use the service -----------------------------------------------------------------------------

    async def waits(self) -> None:
        """Asks for a trace and waits for its end."""
        goal, body = self.request()
        answer = await self.post(body, Prefer="wait=60")
        self.crowd.expect(answer.status == 201, f"waits: POST was answered with {answer.status}")
        self.crowd.judge(read_trace(answer.body), goal, "waits")

    async def polls(self) -> None:
        """Asks again and again whether there is something new."""
        goal, path = await self.begun()
        tag, revision = "", 0
        while True:
            answer = await self.ask("GET", path, {"If-None-Match": tag} if tag else {})
            if answer.status == 200:
                trace = read_trace(answer.body)
                self.crowd.expect(trace.revision > revision, f"polls: revision {trace.revision} after {revision}")
                tag, revision = answer.fields["etag"], trace.revision
                if trace.expires_at is not None:
                    break
            else:
                self.crowd.expect(answer.status == 304, f"polls: GET was answered with {answer.status}")
            await asyncio.sleep(self.crowd.chance.uniform(0.02, 0.2))
        self.crowd.judge(trace, goal, "polls")

    async def follows(self) -> None:
        """Follows to the end, and finds that there is nothing after it."""
        goal, path = await self.begun()
        events = [event async for event in self.events(path)]
        trace = self.ended(events, goal, "follows")
        if trace is not None:
            fields = {"Accept": "text/event-stream", "Last-Event-ID": str(trace.revision)}
            answer = await self.ask("GET", f"{path}/events", fields)
            self.crowd.expect(answer.status == 204, f"follows: after the end came {answer.status}")

    async def resumes(self) -> None:
        """Leaves in the middle, again and again, and goes on from where it was."""
        goal, path = await self.begun()
        events: list[TraceEvent] = []
        while not (events and isinstance(events[-1], EndEvent)):
            most = len(events) + self.crowd.chance.randint(1, 15)
            async for event in self.events(path, len(events)):
                events.append(event)
                if len(events) >= most:
                    break
        self.ended(events, goal, "resumes")

    async def streams(self) -> None:
        """Asks for the events with the trace."""
        goal, body = self.request()
        fields = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        async with self.stream("POST", "/traces", fields, body) as connection:
            if connection.status == 503:
                self.crowd.turned_away += 1
                return
            self.crowd.taken += 1
            self.ended([event async for event in self.read(connection, 0)], goal, "streams")

    async def reads_text(self) -> None:
        """Reads the lines of text as they come, as with curl, and the result afterwards."""
        goal, body = self.request()
        fields = {"Content-Type": "application/json", "Accept": "text/plain"}
        async with self.stream("POST", "/traces", fields, body) as connection:
            if connection.status == 503:
                self.crowd.turned_away += 1
                return
            self.crowd.taken += 1
            text = (await connection.whole()).body.decode()
            self.crowd.expect(goal.truth.address in text or _NO_PROBER in text, f"reads_text: it reads {text!r}")
            path = connection.fields["location"]
        answer = await self.ask("GET", path)
        self.crowd.judge(read_trace(answer.body), goal, "reads_text")

    async def dawdles(self) -> None:
        """Follows slowly, with hardly any buffer."""
        goal, path = await self.begun()
        events = [event async for event in self.events(path, 0, SLOW_BUFFER_BYTES, 0.05)]
        self.ended(events, goal, "dawdles")

    async def leaves(self) -> None:
        """Stops following and waits for the end instead: leaving cancels nothing."""
        goal, path = await self.begun()
        seen = 0
        async for _ in self.events(path):
            seen += 1
            if seen >= 4:
                break
        answer = await self.ask("GET", path, {"Prefer": "wait=60"})
        self.crowd.judge(read_trace(answer.body), goal, "leaves")

    async def deletes(self) -> None:
        """Deletes a trace under way, while following it."""
        _, path = await self.begun()
        async with self.stream("GET", f"{path}/events", {"Accept": "text/event-stream"}) as connection:
            await asyncio.sleep(self.crowd.chance.uniform(0.005, 0.2))
            answer = await self.ask("DELETE", path)
            self.crowd.expect(answer.status == 204, f"deletes: DELETE was answered with {answer.status}")
            answer = await self.ask("GET", path)
            self.crowd.expect(answer.status == 404, f"deletes: afterwards came {answer.status}")
            self.ended([event async for event in self.read(connection, 0)], None, "deletes")

    async def misspells(self) -> None:
        """Asks for a name that is none: a trace that fails."""
        body = json.dumps({"target": f"nowhere-{self.crowd.chance.randrange(10**6)}.demo.test"}).encode()
        answer = await self.post(body, Prefer="wait=60")
        self.crowd.expect(answer.status == 201, f"misspells: POST was answered with {answer.status}")
        self.crowd.expect(answer.json["status"] == Status.FAILED, f"misspells: it is {answer.json['status']}")

    async def trespasses(self) -> None:
        """Asks for what may not be traced."""
        target = self.crowd.chance.choice(("10.0.0.1", "127.0.0.1", "::1", "fe80::1", "224.0.0.1"))
        answer = await self.post(json.dumps({"target": target}).encode())
        self.crowd.expect(answer.status == 403, f"trespasses: {target} was answered with {answer.status}")

    async def errs(self) -> None:
        """Sends what is no request."""
        body, expected = self.crowd.chance.choice(
            ((b"{", 400), (b'{"target": 1}', 422), (b'{"target": "a.example", "x": 1}', 422), (b"[]" * 9000, 413))
        )
        answer = await self.post(body)
        self.crowd.expect(answer.status == expected, f"errs: {body[:40]!r} was answered with {answer.status}")

    async def repeats(self) -> None:
        """Sends the same request twice with one key, and then another one with it."""
        goal, body = self.request()
        key = f'"{self.crowd.chance.getrandbits(64):x}"'
        first = await self.post(body, Idempotency_Key=key)
        second = await self.post(body, Idempotency_Key=key, Prefer="wait=60")
        self.crowd.taken -= 1
        self.crowd.expect(first.json["id"] == second.json["id"], "repeats: one key made two traces")
        self.crowd.judge(read_trace(second.body), goal, "repeats")
        other = await self.post(b'{"target": "plain.demo.test", "probes": 7}', Idempotency_Key=key)
        self.crowd.expect(other.status == 422, f"repeats: another body was answered with {other.status}")

    async def looks(self) -> None:
        """Reads what is not one trace."""
        path = self.crowd.chance.choice(
            ("/traces?limit=20", "/traces?status=running", "/metrics", "/healthz", "/openapi.json", "/")
        )
        answer = await self.ask("GET", path)
        self.crowd.expect(answer.status == 200, f"looks: {path} was answered with {answer.status}")


#: How often each is done, relative to the others.
KINDS: dict[Callable[[Client], Awaitable[None]], int] = {
    Client.waits: 25,
    Client.polls: 15,
    Client.follows: 15,
    Client.resumes: 10,
    Client.streams: 6,
    Client.reads_text: 6,
    Client.dawdles: 3,
    Client.leaves: 4,
    Client.deletes: 5,
    Client.misspells: 2,
    Client.trespasses: 2,
    Client.errs: 3,
    Client.repeats: 4,
    Client.looks: 4,
}
