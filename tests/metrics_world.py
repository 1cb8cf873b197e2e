"""A service over fake probers with its metrics: all rooms real but the probers, on one virtual clock."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse
from twisted.internet.defer import fail

from fake_http import Service
from fake_prober import FakeProber, pump, straight
from naming.scripted_dns import VirtualNetwork, silent
from tracerouted.http import HttpLimits, make_site
from tracerouted.http.wire import encode_event
from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.metrics import add_metrics
from tracerouted.model import Family, TraceRequest
from tracerouted.naming.asn import AsnZones
from tracerouted.naming.describer import Describer
from tracerouted.naming.dnsclient import DnsClient
from tracerouted.naming.errors import NoSuchName
from tracerouted.naming.forward import Resolver
from tracerouted.naming.policy import TargetPolicy
from tracerouted.naming.reverse import ReverseNames
from tracerouted.probing.scheduler import ProbeLimits, Scheduler
from tracerouted.settings import Settings

TARGET = "203.0.114.{}"
SERVER = ("192.0.2.53", 53)


class CountingProber(FakeProber):
    """A prober with the counters of a real one."""

    breaker_open = False

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.counters: Counter[str] = Counter()


class World:
    """A service over fake probers: all rooms real but the probers, on one virtual clock."""

    def __init__(self, network: Any = None, **limits: Any) -> None:
        self.net = clock = VirtualNetwork()
        self.net.servers[SERVER] = silent
        settings = Settings(asn_dns=True)
        scheduler = Scheduler(clock, ProbeLimits(probes_per_second=1e6, probes_burst=1e6))
        self.probers = {family: CountingProber(clock, network or straight(), family) for family in Family}
        for prober in self.probers.values():
            prober.listener = scheduler
            scheduler.add_prober(prober)
        client = DnsClient(clock, clock, lambda: (SERVER,))
        self.look_up: Any = lambda host, family: fail(NoSuchName(f"there is no name {host}"))
        resolver = Resolver(clock, lambda host, family: self.look_up(host, family))
        names, zones = ReverseNames(clock, client), AsnZones(clock, client)
        self.engine = MemoryEngine(
            clock,
            lambda: 1_700_000_000 + clock.seconds(),
            scheduler,
            self.probers,
            TargetPolicy(),
            resolver.resolve,
            Describer(names.hostname, zones.asn),
            lambda target: "192.0.2.1" if "." in target else "2001:db8::1",
            EngineLimits(),
            encode_event,
        )
        self.tracer: Any = SimpleNamespace(
            settings=settings,
            engine=self.engine,
            scheduler=scheduler,
            probers=self.probers,
            dns=client,
            resolver=resolver,
            names=names,
            asn_zones=zones,
            asn_file=SimpleNamespace(built_at=1_690_000_000, errors=2),
        )
        site = make_site(
            self.engine, clock=clock, wall=lambda: 1_700_000_000 + clock.seconds(), limits=HttpLimits(**limits)
        )
        add_metrics(self.tracer, site)
        self.service = Service(site, self.engine, clock)

    def trace(self, target: str = TARGET.format(1), seconds: float = 5, **fields: Any) -> str:
        """Run a trace to its end."""
        request = TraceRequest(target=target, **{"probes": 1, "resolve_names": False, **fields})
        trace_id = self.engine.submit(request).id
        pump(self.net, seconds, 0.002)
        return trace_id

    def text(self, **headers: str) -> str:
        return self.service.get("/metrics", **headers).body.decode()

    def samples(self) -> dict[str, float]:
        """Each sample as it is written, labels included."""
        lines = [line for line in self.text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of a name and exactly these labels; None where there is none."""
        for family in parse(self.text()):
            for sample in family.samples:
                if sample.name == f"tracerouted_{name}" and sample.labels == labels:
                    return sample.value
        return None


def busy() -> World:
    """A world in which every metric has at least one sample."""
    world = World()
    for family, target in (("ipv4", TARGET.format(1)), ("ipv6", "2606:4700::1")):
        for protocol in ("icmp", "tcp", "udp"):
            world.trace(target, protocol=protocol)
        assert family in world.text()
    world.trace("example.net", resolve_names=True, lookup_asn=True)
    trace_id = world.trace(resolve_names=True, lookup_asn=True, seconds=10)
    for path in ("/", f"/traces/{trace_id}", f"/traces/{trace_id}/events", "/traces", "/healthz", "/readyz"):
        world.service.get(path)
    return world
