"""What Prometheus is told: the counters of the other rooms, read and put into its formats when it asks.

Nothing is counted here, so nothing costs anything between two scrapes; a scrape is one turn of the reactor, and its
figures belong together. There is no global registry: each service has its own. Labels have few values, fixed in
advance: no target, address, name or path is ever one. `docs/metrics.md` lists what there is.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from math import inf
from typing import Any, cast

from attrs import field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from twisted.names import dns

from .durations import Durations
from .http import problems
from .http.events import DROPS
from .http.negotiate import acceptable
from .http.problems import ProblemError
from .http.request import EdgeRequest
from .http.site import EdgeSite
from .library import Tracer

#: Label values of a sample, and its value.
Samples = Iterable[tuple[tuple[str, ...], float]]

#: The label of what has none of its kind: the family of a trace whose target was never resolved.
NONE = "none"

#: The prober's counters that are faults, of mtr-packet or of what surrounds it.
FAULTS = ("unknown_words", "oversized_lines", "clock_anomalies", "unmatched", "watchdog_kills", "failed_tests")

_TEXT, _OPENMETRICS = "text/plain", "application/openmetrics-text"
_CONTENT_TYPES = {
    _TEXT: b"text/plain; version=0.0.4; charset=utf-8",
    _OPENMETRICS: b"application/openmetrics-text; version=1.0.0; charset=utf-8",
}
_PARAMETERS = re.compile(rb";\s*(?![Qq]=)[^;,]*")


def counter(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A counter; `name` is without its `_total`."""
    metric = CounterMetricFamily(f"tracerouted_{name}", help, labels=labels)
    for values, value in samples:
        metric.add_metric(values, value)
    return metric


def gauge(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A gauge."""
    metric = GaugeMetricFamily(f"tracerouted_{name}", help, labels=labels)
    for values, value in samples:
        metric.add_metric(values, value)
    return metric


def histogram(
    name: str, help: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], Durations]]
) -> Metric:
    """A histogram."""
    metric = HistogramMetricFamily(f"tracerouted_{name}", help, labels=labels)
    for values, durations in samples:
        buckets = [("+Inf" if bound == inf else str(bound), count) for bound, count in durations.cumulative()]
        metric.add_metric(values, buckets, durations.total_s)
    return metric


def _each(figures: Mapping[Any, float]) -> Samples:
    """One sample per key of one label."""
    return (((str(key),), value) for key, value in figures.items())


@frozen(eq=False)
class TracerCollector(Collector):
    """Traces, probes, probers and look-ups."""

    _tracer: Tracer

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they stand."""
        yield from self._traces()
        yield from self._probes()
        yield from self._probers()
        yield from self._lookups()

    def _traces(self) -> Iterator[Metric]:
        engine, settings = self._tracer.engine, self._tracer.settings
        yield counter(
            "traces_ended",
            "Traces that ended, by status and stop reason.",
            ("status", "stop_reason", "protocol", "family"),
            (
                ((str(status), str(reason), str(protocol), str(family or NONE)), count)
                for (status, reason, protocol, family), count in engine.tally.ended.items()
            ),
        )
        yield histogram(
            "trace_duration_seconds",
            "How long traces ran, without the time they were queued.",
            ("protocol", "family"),
            (((str(p), str(family)), durations) for (p, family), durations in engine.tally.durations.items()),
        )
        limits = {"running": settings.max_running, "queued": settings.max_queued, "kept": settings.max_kept}
        yield gauge("traces", "Traces running, queued, and kept after their end.", ("state",), _each(engine.counts))
        yield gauge("traces_limit", "The most traces there may be in a state.", ("state",), _each(limits))

    def _probes(self) -> Iterator[Metric]:
        tracer, tally = self._tracer, self._tracer.engine.tally
        family = ("family",)
        died = {family: prober.counters["died"] for family, prober in tracer.probers.items()}
        stolen = {family: prober.counters["stolen"] for family, prober in tracer.probers.items()}
        answered = {family: tally.answered[family] for family in tracer.probers}
        lost = {family: tally.lost[family] for family in tracer.probers}
        yield counter("probes_sent", "Probes sent, again or not.", family, _each(tracer.scheduler.sent()))
        yield counter("probes_answered", "Probes answered, in traces that ended.", family, _each(answered))
        yield counter("probes_lost", "Probes judged lost, in traces that ended.", family, _each(lost))
        yield counter("probes_stolen", "Replies that belonged to another probe.", family, _each(stolen))
        yield counter("probes_replayed", "Probes whose mtr-packet died, to be sent again.", family, _each(died))
        yield gauge("probe_slots", "Probes that may be unanswered at once.", family, _each(tracer.scheduler.slots()))
        used = tracer.scheduler.in_flight()
        yield gauge("probe_slots_used", "Probes that mtr-packet has not answered.", family, _each(used))

    def _probers(self) -> Iterator[Metric]:
        tracer, family = self._tracer, ("family",)
        readiness = tracer.engine.readiness()
        ready = {family: float(found.ready) for family, found in readiness.items()}
        breakers = {family: float(prober.breaker_open) for family, prober in tracer.probers.items()}
        restarts = {family: prober.counters["restarts"] for family, prober in tracer.probers.items()}
        yield gauge("ready", "Whether a family can be traced.", family, _each(ready))
        yield gauge("prober_breaker_open", "Whether mtr-packet died so often that it rests.", family, _each(breakers))
        yield counter("prober_restarts", "Starts of mtr-packet after the first.", family, _each(restarts))
        yield counter(
            "prober_faults",
            "What went wrong with mtr-packet, by kind.",
            ("family", "fault"),
            (
                ((str(family), fault), prober.counters[fault])
                for family, prober in tracer.probers.items()
                for fault in FAULTS
            ),
        )
        info = InfoMetricFamily("tracerouted_mtr_packet", "The mtr-packet in use.", labels=("family",))
        for of, found in readiness.items():
            if found.capabilities is not None:
                info.add_metric((str(of),), {"version": found.capabilities.version})
        yield info

    def _lookups(self) -> Iterator[Metric]:
        tracer = self._tracer
        yield counter(
            "dns_questions",
            "Questions to name servers, by type and outcome; those of the system's resolver are not seen.",
            ("type", "outcome"),
            (
                ((dns.QUERY_TYPES.get(kind, NONE), outcome), count)
                for (kind, outcome), count in tracer.dns.outcomes.items()
            ),
        )
        outcomes = tracer.resolver.outcomes
        yield counter("target_lookups", "Look-ups of targets' names.", ("outcome",), _each(outcomes))
        kinds: dict[str, Any] = {"target": tracer.resolver.lookups, "hostname": tracer.names.lookups}
        if tracer.asn_zones is not None:
            kinds |= {"asn": tracer.asn_zones.origin_lookups, "asn_name": tracer.asn_zones.name_lookups}
        yield gauge(
            "lookups",
            "Look-ups under way and waiting.",
            ("kind", "state"),
            (
                ((kind, state), count)
                for kind, lookups in kinds.items()
                for state, count in (("running", lookups.running), ("waiting", lookups.waiting))
            ),
        )
        if tracer.asn_file is not None:
            built = [((), tracer.asn_file.built_at)]
            yield gauge("asn_file_built_timestamp_seconds", "When the file of AS numbers was made.", (), built)
            errors = [((), tracer.asn_file.errors)]
            yield counter("asn_file_errors", "Files of AS numbers and records in them not readable.", (), errors)


@frozen(eq=False)
class SiteCollector(Collector):
    """Requests, connections and streams."""

    _site: EdgeSite

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they stand."""
        site, streams = self._site, self._site.streams
        counts: dict[tuple[bytes, str, bytes], int] = {}
        durations: dict[tuple[bytes, str], Durations] = {}
        for (method, route, status), answers in site.tally.answers.items():
            # A counter that begins at 1 has not increased: those that matter are there before.
            counts.setdefault((method, route, b"500"), 0)
            counts[method, route, status] = answers.count
            if method:
                known = durations.get((method, route))
                durations[method, route] = known + answers.durations if known else answers.durations
        yield counter(
            "http_requests",
            "Answers begun, by route and status.",
            ("method", "route", "status"),
            (
                ((method.decode("ascii") or NONE, route, status.decode("ascii")), count)
                for (method, route, status), count in counts.items()
            ),
        )
        yield histogram(
            "http_request_duration_seconds",
            "From the end of a request to the beginning of its answer, if that was not asked to wait.",
            ("method", "route"),
            (((method.decode("ascii"), route), each) for (method, route), each in durations.items()),
        )
        yield gauge("http_connections", "Client connections open.", (), [((), len(site.connections))])
        yield gauge("http_connections_limit", "The most there may be.", (), [((), site.limits.connections)])
        yield gauge("streams_open", "Event streams open.", (), [((), streams.open)])
        yield gauge("streams_limit", "The most event streams there may be.", (), [((), site.limits.streams)])
        yield counter("streams_opened", "Event streams begun.", (), [((), streams.opened)])
        dropped = {reason: streams.dropped[reason] for reason in DROPS}
        yield counter("streams_dropped", "Event streams ended for their reader.", ("reason",), _each(dropped))


@frozen(eq=False)
class BuildCollector(Collector):
    """What is running."""

    _versions: Mapping[str, str] = field(
        factory=lambda: {
            "version": version("tracerouted"),
            "python_version": platform.python_version(),
            "twisted_version": version("twisted"),
        }
    )

    def collect(self) -> Iterator[Metric]:
        """The one metric."""
        yield InfoMetricFamily("tracerouted_build", "The release that is running.", value=dict(self._versions))


@frozen(eq=False)
class Metrics:
    """`/metrics`: the registry in the format asked for."""

    _registry: CollectorRegistry

    def read(self, request: EdgeRequest) -> bytes:
        """Prometheus's text format, or OpenMetrics where Accept prefers it."""
        accept = _PARAMETERS.sub(b"", request.header(b"Accept") or b"")  # of the versions each format has one
        chosen = acceptable(accept, tuple(_CONTENT_TYPES))
        if chosen is None:
            raise ProblemError(problems.NOT_ACCEPTABLE, f"metrics are {' or '.join(_CONTENT_TYPES)}")
        request.put(b"Cache-Control", b"no-store")
        encode = generate_openmetrics if chosen == _OPENMETRICS else generate_latest
        return request.reply(encode(self._registry), _CONTENT_TYPES[chosen])


def registry_of(tracer: Tracer, site: EdgeSite) -> CollectorRegistry:
    """All metrics of one service, its process included."""
    registry = CollectorRegistry()
    for collector in (BuildCollector(), TracerCollector(tracer), SiteCollector(site)):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def add_metrics(tracer: Tracer, site: EdgeSite) -> None:
    """Add `/metrics` to a site's routes."""
    metrics = Metrics(registry_of(tracer, site))
    site.router.route("/metrics", methods=["GET"], endpoint="metrics")(cast(Any, metrics.read))
