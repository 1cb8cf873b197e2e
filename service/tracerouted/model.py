"""The vocabulary: what is asked, what happened, and what is told.

Three kinds of values, all immutable, none of which knows Twisted, HTTP or mtr-packet:

* a request (`TraceRequest`) with the one table of limits every door checks against;
* facts (`ProbeSent`, `ProbeSettled`, ...): what happened while a route was traced, in order. They are the
  only thing a running trace writes, and everything shown is folded from them;
* views (`Trace`, `Hop`, `HopEvent`, ...): what a reader sees.

Units: RTTs are integer microseconds here, wall times are Unix seconds (float, UTC), monotonic times are named so.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from attrs import field, fields, frozen


class Family(StrEnum):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def version(self) -> int:
        """The IP version number: 4 or 6."""
        return 4 if self is Family.IPV4 else 6


class Protocol(StrEnum):
    """What a probe is made of."""

    ICMP = "icmp"
    UDP = "udp"
    TCP = "tcp"
    SCTP = "sctp"


class Outcome(StrEnum):
    """What became of one probe."""

    PENDING = "pending"
    REPLY = "reply"  # from the target itself
    TTL_EXPIRED = "ttl_expired"
    UNREACHABLE = "unreachable"  # a responder said so, or answered in the target's place
    TIMEOUT = "timeout"
    ERROR = "error"  # never left, or never could be judged: neither lost nor received


class Status(StrEnum):
    """Where a trace stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


class StopReason(StrEnum):
    """Why a trace ended."""

    REACHED = "reached"
    UNREACHABLE = "unreachable"
    GAP_LIMIT = "gap_limit"
    MAX_TTL = "max_ttl"
    LOOP = "loop"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    ERROR = "error"


# --- what is asked -------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """One thing wrong with a request: the field's name ("" for the whole) and what to do about it."""

    field: str
    detail: str


class InvalidRequest(ValueError):
    """A request outside the limits. `problems` holds one entry per wrong field."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.detail}" for p in problems))
        self.problems = problems


class Range(NamedTuple):
    """The inclusive bounds of an integer field."""

    least: int
    most: int


DEFAULT_PORTS = {Protocol.UDP: 32434, Protocol.TCP: 80, Protocol.SCTP: 80}

#: mtr-packet uses the ports from 33000 up as probe sequence numbers; a UDP probe's own ports stay below them.
MOST_UDP_PORT = 32999

LEAST_SIZE = {Family.IPV4: 28, Family.IPV6: 48}


def _ranged(default: int | None, least: int, most: int) -> Any:
    return field(default=default, metadata={"range": Range(least, most)})


@frozen(kw_only=True)
class TraceRequest:
    """What somebody wants traced; construction raises `InvalidRequest` naming every field outside its limits.

    `family` None means any. `port` and `source_port` None mean the default of the protocol (see `filled_port`).
    Durations are milliseconds, `size` is bytes with all headers.
    """

    target: str
    family: Family | None = None
    protocol: Protocol = Protocol.ICMP
    port: int | None = _ranged(None, 1, 65535)
    source_port: int | None = _ranged(None, 1024, MOST_UDP_PORT)
    flows: int = _ranged(1, 1, 64)
    first_ttl: int = _ranged(1, 1, 64)
    max_ttl: int = _ranged(30, 1, 64)
    probes: int = _ranged(3, 1, 100)
    interval_ms: int = _ranged(50, 10, 10_000)
    timeout_ms: int = _ranged(2000, 100, 10_000)
    deadline_ms: int = _ranged(60_000, 1000, 300_000)
    gap_limit: int = _ranged(8, 1, 64)
    size: int = _ranged(64, 28, 1500)
    tos: int = _ranged(0, 0, 255)
    resolve_names: bool = True
    lookup_asn: bool = False

    @property
    def filled_port(self) -> int | None:
        """The destination port, the protocol's default where none was asked for; None with icmp."""
        return self.port or DEFAULT_PORTS.get(self.protocol)

    def __attrs_post_init__(self) -> None:
        problems = tuple(self._problems())
        if problems:
            raise InvalidRequest(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, bounds in _RANGES:
            value = getattr(self, name)
            if value is not None and not bounds.least <= value <= bounds.most:
                yield Problem(name, f"must be from {bounds.least} to {bounds.most}; got {value}")
        if self.first_ttl > self.max_ttl:
            yield Problem("first_ttl", f"must not be above max_ttl ({self.max_ttl}); got {self.first_ttl}")
        if self.protocol is Protocol.ICMP and self.port is not None:
            yield Problem("port", "icmp has no ports; leave port out or choose udp, tcp or sctp")
        if self.protocol is Protocol.UDP and self.port is not None and MOST_UDP_PORT < self.port <= 65535:
            yield Problem("port", f"must be from 1 to {MOST_UDP_PORT} with udp; got {self.port}")
        if self.protocol is not Protocol.UDP:
            if self.source_port is not None:
                yield Problem("source_port", "only udp takes a source port; leave it out or choose udp")
            if self.flows != 1:
                yield Problem("flows", "only udp can enumerate parallel paths; leave flows out or choose udp")
        elif self.source_port is not None and self.source_port + self.flows - 1 > MOST_UDP_PORT:
            yield Problem("source_port", f"source_port + flows - 1 must not be above {MOST_UDP_PORT}")
        least = LEAST_SIZE.get(self.family, 0) if self.family else 0
        if self.size < least:
            yield Problem("size", f"must be at least {least} with {self.family}; got {self.size}")


_RANGES: tuple[tuple[str, Range], ...] = tuple(
    (attribute.name, attribute.metadata["range"])
    for attribute in fields(TraceRequest)
    if "range" in attribute.metadata
)


# --- what happened -------------------------------------------------------------------------------------------


class MplsLabel(NamedTuple):
    """One entry of a label stack quoted in a reply (RFC 4950): label, traffic class, bottom of stack, TTL."""

    label: int
    tc: int
    s: int
    ttl: int


class Asn(NamedTuple):
    """The autonomous system an address is announced by."""

    number: int
    name: str | None


# Facts are NamedTuples because two of them are made per probe: they cost a third of a frozen attrs instance.


class ProbeSent(NamedTuple):
    """A probe left. `number` names it within its trace; `sent_at` is Unix seconds. It changes no revision.

    A probe that had to be sent again (its process died, its reply was stolen) is sent anew under the same number.
    """

    number: int
    ttl: int
    flow: int
    sent_at: float


class ProbeSettled(NamedTuple):
    """What became of a probe. A later fact with the same number replaces it (an answer that came late).

    `ttl` may differ from the TTL it was sent with: the target's answers to higher TTLs count at its own hop.
    """

    number: int
    ttl: int
    flow: int
    sent_at: float
    outcome: Outcome
    address: str | None
    rtt_us: int | None
    mpls: tuple[MplsLabel, ...]
    error: str | None


class HopRateLimited(NamedTuple):
    """Whether loss at this hop is its own reluctance to answer, because later hops do not show it (mtr#145)."""

    ttl: int
    rate_limited: bool


class HopRetracted(NamedTuple):
    """A flow has nothing at this TTL after all: its end was found at a lower one."""

    ttl: int
    flow: int


class FlowCut(NamedTuple):
    """A flow ends at `last_ttl`: its probes on their way to higher TTLs are nobody's. It changes no revision."""

    flow: int
    last_ttl: int


class AddressDescribed(NamedTuple):
    """A responder's reverse name or AS was found. None means nothing new was learnt about that half."""

    ttl: int
    address: str
    hostname: str | None
    asn: Asn | None


@frozen
class Target:
    """Where a trace goes: the name asked for, the pinned address, and all addresses the name had."""

    host: str
    address: str
    family: Family
    addresses: tuple[str, ...]


class StatusChanged(NamedTuple):
    """The trace was queued, resolved, started or ended. `at` is Unix seconds; None fields are unchanged."""

    status: Status
    at: float
    stop_reason: StopReason | None = None
    target: Target | None = None
    source_address: str | None = None
    error: str | None = None


Fact = ProbeSent | ProbeSettled | HopRateLimited | HopRetracted | FlowCut | AddressDescribed | StatusChanged


# --- what is told --------------------------------------------------------------------------------------------


@frozen
class Responder:
    """One address that answered at a hop: in which flows, and how many times."""

    address: str
    hostname: str | None
    asn: Asn | None
    flows: tuple[int, ...]
    received: int


@frozen
class Probe:
    """One probe as shown: `sent_at` Unix seconds, `rtt_us` microseconds or None."""

    flow: int
    sent_at: float
    outcome: Outcome
    address: str | None
    rtt_us: int | None
    mpls: tuple[MplsLabel, ...]
    error: str | None


@frozen
class HopStats:
    """Counts and RTT statistics of one hop; everything that has no value yet is None, never 0.

    `sent` counts judged probes only (received + lost): those in flight, stolen, or that never left are in neither.
    RTT figures are microseconds. `stddev_us` is the sample's (n - 1); `jitter_us` the mean absolute difference of
    consecutive RTTs.
    """

    sent: int
    received: int
    lost: int
    loss_pct: float | None
    min_us: float | None
    avg_us: float | None
    median_us: float | None
    max_us: float | None
    stddev_us: float | None
    jitter_us: float | None


@frozen
class Hop:
    """One TTL. A silent hop has no responders."""

    ttl: int
    responders: tuple[Responder, ...]
    probes: tuple[Probe, ...]
    stats: HopStats
    rate_limited: bool


@frozen
class Path:
    """One flow's way: the first responder per TTL from the first TTL on (None where silent), and its hash."""

    flow: int
    path_id: str
    addresses: tuple[str | None, ...]


@frozen
class Trace:
    """A trace as it stands at `revision`."""

    id: str
    status: Status
    stop_reason: StopReason | None
    reached: bool
    revision: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    request: TraceRequest
    target: Target | None
    source_address: str | None
    path_id: str | None
    hops: tuple[Hop, ...]
    paths: tuple[Path, ...]
    error: str | None


@frozen
class StatusEvent:
    """The trace changed its status."""

    revision: int
    status: Status
    stop_reason: StopReason | None
    target: Target | None
    source_address: str | None


@frozen
class HopEvent:
    """A hop changed. `probe` is the probe that changed it, None when a name, an AS or a judgement did.

    A hop with no responders and nothing sent has been retracted.
    """

    revision: int
    ttl: int
    responders: tuple[Responder, ...]
    stats: HopStats
    rate_limited: bool
    probe: Probe | None


@frozen
class EndEvent:
    """The trace is terminal; nothing follows."""

    revision: int
    trace: Trace


TraceEvent = StatusEvent | HopEvent | EndEvent


# --- between probing and whoever puts packets on the wire ----------------------------------------------------


class ReplyKind(StrEnum):
    """What a prober says about one probe."""

    REPLY = "reply"  # the target answered, or some address did with a port unreachable
    TTL_EXPIRED = "ttl_expired"
    UNREACHABLE = "unreachable"  # an address said so
    TIMEOUT = "timeout"
    ERROR = "error"  # it never left; `error` has the word
    RETRY = "retry"  # nothing is known through no fault of the network; `error` is a RetryReason


class RetryReason(StrEnum):
    """Why a probe says nothing about the network and should be sent again."""

    DIED = "prober-died"
    STOLEN = "reply-stolen"
    EXHAUSTED = "probes-exhausted"
    NO_DESCRIPTORS = "no-descriptors"
    ADDRESS_IN_USE = "address-in-use"
    BARE_NO_ROUTE = "bare-no-route"
    CLOCK = "clock_anomaly"  # a step of the wall clock ended the wait


class Reply(NamedTuple):
    """A prober's word on one probe. `rtt_us` is None where the clock made it a lie (`error` "clock_anomaly")."""

    kind: ReplyKind
    address: str | None = None
    rtt_us: int | None = None
    mpls: tuple[MplsLabel, ...] = ()
    error: str | None = None


@frozen
class Capabilities:
    """What one family's prober was found able to do."""

    version: str
    protocols: frozenset[Protocol]
    constant_flow_udp: bool
    slots: int
