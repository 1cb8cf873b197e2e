"""What is known about an address besides the address: its reverse name and its AS. The seam jobs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, succeed

from ..model import Asn


@frozen
class Description:
    """What was learnt about an address; None where there is nothing, or nothing was asked for."""

    hostname: str | None = None
    asn: Asn | None = None


class Describer(Interface):
    """Describes the responders of traces."""

    def describe(self, address: str, want_name: bool, want_asn: bool) -> Deferred[Description]:
        """What can be learnt about an address. It never fails; what cannot be found in time is None.

        It has fired already when nothing has to be asked (cached, or nothing wanted), so a callback added to it may
        run at once. It waits for both halves: ask for them in two calls to have each as it comes. Cancelling it
        (CancelledError follows) takes the question back.
        """


@frozen
class Directory:
    """A `Describer` over a source for each half; a source never fails, and None is no source."""

    hostname: Callable[[str], Deferred[str | None]] | None = None
    asn: Callable[[str], Deferred[Asn | None]] | None = None

    def describe(self, address: str, want_name: bool, want_asn: bool) -> Deferred[Description]:
        """See `Describer`."""
        halves: list[Deferred[Any]] = [
            source(address) if wanted and source is not None else succeed(None)
            for wanted, source in ((want_name, self.hostname), (want_asn, self.asn))
        ]
        return DeferredList(halves, consumeErrors=True).addCallback(_description)


def _description(halves: list[tuple[bool, Any]]) -> Description:
    for found, failure in halves:
        if not found:  # cancelled
            raise failure.value
    return Description(*(value for _, value in halves))
