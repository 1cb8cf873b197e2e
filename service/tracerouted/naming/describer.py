"""What is known about an address besides the address: its reverse name and its AS. The seam jobs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from ..model import Asn


def nothing(address: str) -> Deferred[Any]:
    """The answer where there is nobody to ask."""
    return succeed(None)


@frozen
class Describer:
    """Whom to ask about the responders of traces.

    A source never fails; what cannot be found in time is None. It has fired already when nothing has to be asked, so
    a callback added to it may run at once. Cancelling it (CancelledError follows) takes the question back.
    """

    hostname: Callable[[str], Deferred[str | None]] = nothing
    asn: Callable[[str], Deferred[Asn | None]] = nothing
