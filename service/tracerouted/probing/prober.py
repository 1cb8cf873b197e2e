"""The seam between tracing and whoever puts packets on the wire.

`tracerouted.mtrpacket` provides it; tests provide it from a simulated network on a virtual clock.
"""

from __future__ import annotations

from typing import Protocol as Interface

from attrs import frozen

from ..model import Capabilities, Family, Protocol, Reply

#: Each probe of these is a socket.
SOCKET_PROTOCOLS = (Protocol.TCP, Protocol.SCTP)

#: What a prober waits for a probe that need not be waited for as long as the request says, in whole seconds. A TCP
#: or SCTP probe is sent again by the kernel after that long (RFC 6298); one of another protocol holds its slot.
SHORT_WAIT_S = 1


@frozen
class ProbeKind:
    """Everything the probes of one trace have in common. `timeout_s` is whole seconds, at least 1."""

    protocol: Protocol
    address: str
    source_address: str
    port: int | None
    size: int
    tos: int
    timeout_s: int


class Listener(Interface):
    """Who hears what a prober has to say."""

    def on_reply(self, ticket: object, reply: Reply, sent_at: float, now: float) -> None:
        """One probe's answer. `ticket` is what `send` was given; times are monotonic seconds."""

    def on_late(self, ticket: object, now: float) -> None:
        """A probe has left only now, not when it was sent: the wait for its answer begins. Act on it in `on_turn`."""

    def on_turn(self, prober: Prober) -> None:
        """A batch of replies has been delivered, or the prober became ready or unready: act on it now."""

    def on_alive(self, prober: Prober, asked_at: float) -> None:
        """Everything the network had answered by `asked_at` has been delivered; see `Prober.confirm`."""


class Prober(Interface):
    """Sends probes of one address family."""

    family: Family

    @property
    def capabilities(self) -> Capabilities | None:
        """What it can do, or None while it cannot trace."""

    @property
    def unready_reason(self) -> str | None:
        """Why it cannot trace now, in words for an operator; None while it can."""

    def prepare(self, kind: ProbeKind) -> object:
        """The constant part of a trace's probes, made once; given back to `send`."""

    def send(self, prepared: object, ttl: int, source_port: int | None, ticket: object) -> None:
        """Send one probe; exactly one `Listener.on_reply` follows, never from inside this call.

        The caller keeps the number in flight within `capabilities.slots`. Probes sent in one reactor turn leave
        together.
        """

    def confirm(self) -> None:
        """Ask for proof of life: `Listener.on_alive` follows unless the prober dies first.

        A silent probe may be called lost only after such proof: without it the reply may be lying unread.
        Calls while one is under way are folded into the next.
        """
