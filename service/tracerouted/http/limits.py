"""The limits of the HTTP side, each of which is a setting.

`HttpLimits` is filled by the settings; `SETTINGS` says under which name an operator finds a limit, so that whatever
is refused can say how to raise it.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class HttpLimits:
    """How much one client, and all of them, may take. Sizes are bytes, durations seconds."""

    body_bytes: int = 16_384
    #: From the first byte of a request (or the connection) to the last byte of its body.
    request_deadline_s: float = 10.0
    #: How long a connection may stay open between two requests.
    keep_alive_s: float = 60.0
    connections: int = 1000
    requests_per_connection: int = 1000
    streams: int = 1000
    stream_behind_bytes: int = 1_048_576
    stream_stalled_s: float = 30.0
    heartbeat_s: float = 15.0
    render_cache_bytes: int = 16_777_216
    remembered: int = 16_384


SETTINGS = {
    "body_bytes": "TRACEROUTED_MAX_BODY_BYTES",
    "request_deadline_s": "TRACEROUTED_REQUEST_DEADLINE_S",
    "keep_alive_s": "TRACEROUTED_KEEP_ALIVE_S",
    "connections": "TRACEROUTED_MAX_CONNECTIONS",
    "requests_per_connection": "TRACEROUTED_MAX_REQUESTS_PER_CONNECTION",
    "streams": "TRACEROUTED_MAX_STREAMS",
    "stream_behind_bytes": "TRACEROUTED_STREAM_BEHIND_BYTES",
    "stream_stalled_s": "TRACEROUTED_STREAM_STALLED_S",
    "heartbeat_s": "TRACEROUTED_HEARTBEAT_S",
    "render_cache_bytes": "TRACEROUTED_RENDER_CACHE_BYTES",
    "remembered": "TRACEROUTED_MAX_REMEMBERED",
}
