"""The composition root: settings and a reactor become a running daemon. Wiring, no logic."""

# twisted.application has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .http.cors import Origins
from .http.keys import KeyRing, KeysFileError
from .http.limits import HttpLimits
from .http.policy import Policy
from .http.quota import Quota
from .http.site import EdgeSite, make_site
from .http.wire import encode_event
from .library import Tracer
from .listening import listen
from .metrics import add_metrics
from .settings import SettingError, Settings
from .web.pages import add_pages

#: After the last trace has ended, what followers and waiting requests may take to read of its end.
LAST_WORDS_S = 0.5


def http_limits(settings: Settings) -> HttpLimits:
    """The limits of the HTTP side that the settings give."""
    return HttpLimits(
        body_bytes=settings.max_body_bytes,
        request_deadline_s=settings.request_deadline_s,
        keep_alive_s=settings.keep_alive_s,
        connections=settings.max_connections,
        requests_per_connection=settings.max_requests_per_connection,
        streams=settings.max_streams,
        stream_behind_bytes=settings.stream_behind_bytes,
        stream_stalled_s=settings.stream_stalled_s,
        heartbeat_s=settings.heartbeat_s,
        render_cache_bytes=settings.render_cache_bytes,
        remembered=settings.max_remembered,
    )


def policy(settings: Settings, clock: IReactorTime) -> Policy:
    """Who may use the service, as the settings say. Raises `SettingError` for a keys file that cannot be used."""
    keys = None
    if settings.api_keys_file is not None:
        try:
            keys = KeyRing(Path(settings.api_keys_file), clock)
        except KeysFileError as wrong:
            raise SettingError(f"TRACEROUTED_API_KEYS_FILE={settings.api_keys_file!r}: {wrong}") from None
    per_minute = settings.create_per_minute
    return Policy(
        keys=keys,
        trusted_proxies=settings.trusted_proxies,
        quota=Quota(per_minute, clock, settings.max_remembered) if per_minute else None,
        origins=Origins(settings.cors_origins),
    )


@define(eq=False)
class Daemon(Service):
    """The service: probers first tested, then ready; ports bound when it starts, so that a taken one is an error."""

    _settings: Settings
    _reactor: Any
    _tracer: Tracer
    _site: EdgeSite
    _ports: list[IListeningPort] = field(init=False, factory=list)
    _log: Logger = field(init=False, factory=Logger)

    def startService(self) -> None:
        """Bind, and start the probers; readiness follows when their self-tests are done."""
        super().startService()
        self._ports = listen(self._reactor, self._settings.listen, self._site)
        ensureDeferred(self._tracer.start()).addErrback(
            lambda failure: self._log.failure("the probers did not start", failure)
        )

    def stopService(self) -> Deferred[None]:
        """Refuse new traces, let running ones end, end every stream, then leave."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._site.drain()
        await self._tracer.engine.drain(self._settings.shutdown_s)
        await deferLater(self._reactor, LAST_WORDS_S)
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self._tracer.stop()


def make_service(settings: Settings, reactor: Any, wall: Callable[[], float] = time.time) -> Service:
    """The whole daemon, not yet started. `wall` gives Unix seconds. Raises `SettingError`."""
    tracer = Tracer(reactor, settings, wall, encode_event)
    site = make_site(
        tracer.engine,
        clock=reactor,
        wall=wall,
        limits=http_limits(settings),
        policy=policy(settings, reactor),
        lookup_asn=tracer.knows_asn,
    )
    add_pages(site.router)
    if settings.metrics:
        add_metrics(tracer, site)
    return Daemon(settings, reactor, tracer, site)
