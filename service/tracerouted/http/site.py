"""The HTTP service put together: a Site with limits around one Klein application.

`make_site` is what the composition root calls. The application is `EdgeSite.router`: whoever adds a resource (a page,
metrics) adds a route to it. Every exception a handler raises becomes a problem document in `Router`, whatever the
route.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from klein import Klein
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as BaseRequest
from twisted.web.http import datetimeToString
from twisted.web.server import Site
from werkzeug.exceptions import MethodNotAllowed

from ..jobs.engine import Engine
from . import problems
from .channel import EdgeChannel
from .contract import add_contract
from .events import Streams
from .health import Health
from .idempotency import CreatedTraces
from .limits import SETTINGS, HttpLimits
from .policy import Gate, Policy
from .rendered import Rendered
from .request import EdgeRequest
from .tally import Tally
from .traces import Traces

#: How often connections are looked at for having taken too long.
_SWEEP_S = 1.0
#: How often, at most, the log says that there are too many: who comes and goes must not fill it.
_SAY_FULL_S = 60.0


class Router(Klein):
    """A Klein application whose errors, its own included, are problem documents."""

    _log = Logger()

    def __init__(self) -> None:
        super().__init__()
        # A redirect would be the one answer with a body of HTML.
        self._url_map.merge_slashes = False
        self._url_map.strict_slashes = True
        self.handle_errors(Exception)(cast(Any, self._problem))
        self._routes: dict[str, str] = {}

    def execute_endpoint(self, endpoint: str, request: Any, **kwargs: Any) -> Any:
        """Answer a request that matched, noting what. It does what Klein's does, with a call less."""
        route = self._routes.get(endpoint)
        if route is None:
            rule = next(self.url_map.iter_rules(endpoint)).rule
            route = self._routes[endpoint] = rule.replace("<", "{").replace(">", "}")
        request.route = route
        return self._endpoints[endpoint](self._instance, request, **kwargs)

    def _problem(self, request: EdgeRequest, failure: Failure) -> bytes:
        error = failure.value
        assert error is not None
        if isinstance(error, MethodNotAllowed) and request.method == b"OPTIONS":
            request.setResponseCode(204)
            request.put(b"Allow", ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"})).encode("ascii"))
            return b""
        problem = problems.of(error)
        if problem is None:
            self._log.failure("a request could not be answered", failure=failure)
            problem = problems.unexpected()
        return request.refused(problem)


class EdgeSite(Site):
    """All connections, within the limits.

    `wall` gives Unix seconds for the Date field; `clock` times the connections.
    """

    requestFactory = EdgeRequest
    streams: Streams  # those of its resources; see `make_site`
    _log = Logger()

    def __init__(
        self,
        router: Router,
        clock: IReactorTime,
        wall: Callable[[], float],
        limits: HttpLimits,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(
            Gate(policy or Policy(), router.resource()),
            parsePOSTFormSubmission=False,
            reactor=clock,
            timeout=limits.request_deadline_s,
        )
        self.router = router
        self.clock = clock
        self.limits = limits
        self.connections: set[EdgeChannel] = set()
        self.tally = Tally()
        self.draining = False
        self._wall = wall
        self._date = (0, b"")
        self._said_full: float | None = None
        self._sweeping: IDelayedCall | None = None

    def protocol(self) -> EdgeChannel:  # type: ignore[override]
        return EdgeChannel()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel, or None (the connection is closed) when there are too many."""
        if len(self.connections) < self.limits.connections:
            return super().buildProtocol(addr)
        now = self.clock.seconds()
        if self._said_full is None or now - self._said_full >= _SAY_FULL_S:
            self._said_full = now
            self._log.warn(
                "{count} connections are open; further ones are closed ({setting})",
                count=len(self.connections),
                setting=SETTINGS["connections"],
            )
        return None

    def opened(self, channel: EdgeChannel) -> None:
        """A connection has been made."""
        self.connections.add(channel)
        if self._sweeping is None:
            self._sweeping = self.clock.callLater(_SWEEP_S, self._sweep)

    def closed(self, channel: EdgeChannel) -> None:
        """A connection has been lost."""
        self.connections.discard(channel)
        if not self.connections and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = self.clock.callLater(_SWEEP_S, self._sweep)
        now = self.clock.seconds()
        for channel in tuple(self.connections):
            channel.check_time(now)

    def drain(self) -> None:
        """Stop being ready; close connections as they become idle. Requests under way are answered."""
        self.draining = True
        for channel in tuple(self.connections):
            channel.close_when_idle()

    def date(self) -> bytes:
        """The Date field of now (RFC 9110 section 6.6.1)."""
        now = int(self._wall())
        if now != self._date[0]:
            self._date = (now, datetimeToString(now))
        return self._date[1]

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    # No access log: it costs a seventh of the request rate, and would be a list of who traced what.

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    def log(self, request: BaseRequest) -> None:
        pass


def make_site(
    engine: Engine,
    *,
    clock: IReactorTime,
    wall: Callable[[], float],
    limits: HttpLimits | None = None,
    policy: Policy | None = None,
    lookup_asn: bool = False,
) -> EdgeSite:
    """The service over `engine`.

    `clock` times everything; `wall` gives Unix seconds; `policy` says who may use it (default: everybody);
    `lookup_asn` is that field's default in requests (true where a source of AS numbers is set up).
    """
    limits = limits or HttpLimits()
    policy = policy or Policy()
    router = Router()
    site = EdgeSite(router, clock, wall, limits, policy)
    streams = site.streams = Streams(engine, clock, limits)
    rendered = Rendered(limits.render_cache_bytes)
    created = CreatedTraces(engine, limits.remembered)
    traces = Traces(engine, clock, streams, rendered, policy, created, {"lookup_asn": lookup_asn})
    health = Health(engine, lambda: site.draining)
    route = router.route
    route("/traces", methods=["POST"])(traces.create)
    route("/traces", methods=["GET"])(traces.list)
    route("/traces/<trace_id>", methods=["GET"])(traces.read)
    route("/traces/<trace_id>", methods=["DELETE"])(traces.delete)
    route("/traces/<trace_id>/events", methods=["GET"])(traces.events)
    route("/healthz", methods=["GET"])(health.alive)
    route("/readyz", methods=["GET"])(health.ready)
    add_contract(router)
    return site
