"""Routes for any Twisted program, without HTTP.

    tracer = Tracer(reactor)
    await tracer.start()
    trace = await tracer.trace("192.0.2.1", probes=1)
    async for event in tracer.follow(tracer.submit(TraceRequest(target="192.0.2.1")).id):
        ...
    await tracer.stop()

A `Tracer` puts the rooms below HTTP together: one prober per address family, the scheduler, naming, and the engine.
The daemon is the same `Tracer` with an HTTP site over it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from .jobs.engine import Readiness
from .jobs.memory import EngineLimits, MemoryEngine
from .model import EndEvent, Family, Trace, TraceEvent, TraceRequest
from .mtrpacket.source import source_address
from .mtrpacket.supervisor import Supervisor
from .naming.asn import AsnZones, Source, either
from .naming.asnfile import AsnFile, NotAnAsnFile
from .naming.describer import Describer, nothing
from .naming.dnsclient import DnsClient, SystemServers
from .naming.forward import Resolver, server_look_up, system_look_up
from .naming.policy import TargetPolicy
from .naming.reverse import ReverseNames
from .probing.scheduler import ProbeLimits, Scheduler
from .settings import SettingError, Settings

#: What may leave at once after a pause, as seconds' worth of the rate.
_BURST_S = 0.1
_LEAST_TARGET_BURST = 100
#: A question's share of the time for a look-up: one that is not answered leaves time for what others were answered.
_QUESTION_SHARE = 0.8


def probe_limits(settings: Settings) -> ProbeLimits:
    """The probing budgets that the settings give."""
    return ProbeLimits(
        probes_per_second=settings.probes_per_second,
        probes_burst=max(1.0, settings.probes_per_second * _BURST_S),
        target_probes_per_second=settings.target_probes_per_second,
        target_probes_burst=max(_LEAST_TARGET_BURST, settings.target_probes_per_second * _BURST_S),
    )


@define(eq=False)
class Tracer:
    """Traces routes. `reactor` is a Twisted reactor whose `seconds` should be monotonic; `wall` gives Unix seconds.

    `encode` makes the bytes of an event for followers that take bytes. Raises `SettingError` for a file of AS numbers
    that cannot be used.
    """

    _reactor: Any
    settings: Settings = field(factory=Settings)
    _wall: Callable[[], float] = time.time
    _encode: Callable[[TraceEvent], bytes] = lambda event: b""
    engine: MemoryEngine = field(init=False)
    scheduler: Scheduler = field(init=False)
    probers: dict[Family, Supervisor] = field(init=False)
    dns: DnsClient = field(init=False)
    resolver: Resolver = field(init=False)
    names: ReverseNames = field(init=False)
    asn_file: AsnFile | None = field(init=False, default=None)
    asn_zones: AsnZones | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        reactor, settings = self._reactor, self.settings
        servers = tuple((address.host, address.port) for address in settings.dns_servers)
        lookups, deadline_s, remembered = settings.dns_lookups, settings.dns_deadline_s, settings.max_remembered
        self.dns = DnsClient(
            reactor,
            reactor,
            (lambda: servers) if servers else SystemServers(reactor),
            deadline_s * _QUESTION_SHARE,
        )
        look_up = server_look_up(self.dns) if servers else system_look_up(reactor)
        # Every trace whose name waits for its turn is itself a waiting one: there are no more than may be.
        self.resolver = Resolver(reactor, look_up, lookups, settings.max_queued, deadline_s)
        self.names = ReverseNames(reactor, self.dns, lookups, kept=remembered, deadline_s=deadline_s)
        self.scheduler = Scheduler(reactor, probe_limits(settings))
        self.probers = {
            family: Supervisor(family, reactor, path=settings.mtr_packet, listener=self.scheduler)
            for family in Family
        }
        for prober in self.probers.values():
            self.scheduler.add_prober(prober)
        self.engine = MemoryEngine(
            reactor,
            self._wall,
            self.scheduler,
            self.probers,
            TargetPolicy(settings.allow_targets, settings.deny_targets),
            self.resolver.resolve,
            Describer(self.names.hostname, self._asn_source() or nothing),
            source_address,
            EngineLimits(
                max_running=settings.max_running,
                max_queued=settings.max_queued,
                max_kept=settings.max_kept,
                max_kept_bytes=settings.max_kept_bytes,
                retention_s=settings.retention_s,
                traces_per_prefix=settings.traces_per_prefix,
                max_remembered=remembered,
                show_source_address=settings.show_source_address,
            ),
            self._encode,
        )

    def _asn_source(self) -> Source | None:
        if self.settings.asn_mmdb is not None:
            try:
                self.asn_file = AsnFile(self.settings.asn_mmdb, self._reactor)
            except NotAnAsnFile as wrong:
                raise SettingError(f"TRACEROUTED_ASN_MMDB={self.settings.asn_mmdb!r}: {wrong}") from None
        if self.settings.asn_dns:
            settings = self.settings
            self.asn_zones = AsnZones(
                self._reactor,
                self.dns,
                settings.dns_lookups,
                kept=settings.max_remembered,
                deadline_s=settings.dns_deadline_s,
            )
        if self.asn_file and self.asn_zones:
            return either(self.asn_file.asn, self.asn_zones.asn)
        source = self.asn_file or self.asn_zones
        return source.asn if source else None

    @property
    def knows_asn(self) -> bool:
        """Whether a source of AS numbers is set up."""
        return self.asn_file is not None or self.asn_zones is not None

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> Mapping[Family, Readiness]:
        """Start the probers; returns when each has been tested, with what can be traced."""
        await gatherResults([prober.start() for prober in self.probers.values()])
        return self.engine.readiness()

    async def stop(self, patience_s: float = 0.0) -> None:
        """Take nothing new, end what still runs after `patience_s`, then stop everything."""
        await self.engine.drain(patience_s)
        self.resolver.stop()
        self.names.stop()
        if self.asn_zones is not None:
            self.asn_zones.stop()
        await gatherResults([prober.stop() for prober in self.probers.values()])
        self.scheduler.close()
        await deferLater(self._reactor, 0)  # sockets of questions given up are closed in a turn of their own

    # --- tracing ---------------------------------------------------------------------------------------------

    def submit(self, request: TraceRequest) -> Trace:
        """See `jobs.engine.Engine.submit`."""
        return self.engine.submit(request)

    async def trace(self, target: str, **fields: Any) -> Trace:
        """Trace a route to its end. `fields` are those of `model.TraceRequest`.

        Raises `model.InvalidRequest` or a `jobs.engine.EngineError` if it is not accepted; a name that does not
        resolve, or a host without a route, is a trace that ends failed.
        """
        accepted = self.engine.submit(TraceRequest(target=target, **fields))
        await self.engine.finished(accepted.id)
        return self.engine.get(accepted.id)

    async def follow(self, trace_id: str, after: int = 0) -> AsyncIterator[TraceEvent]:
        """The events of a trace past revision `after`, as they happen, up to and including its end."""
        more: list[Deferred[None]] = []

        def notify() -> None:
            # Whoever waits takes what there is and waits again from inside this callback.
            waiting = more[:]
            more.clear()
            for waiter in waiting:
                waiter.callback(None)

        follower = self.engine.follow(trace_id, notify, after)
        try:
            while True:
                for event in follower.take():
                    yield event
                    if isinstance(event, EndEvent):
                        return
                if follower.done:
                    return
                waiting: Deferred[None] = Deferred()
                more.append(waiting)
                await waiting
        finally:
            follower.close()
