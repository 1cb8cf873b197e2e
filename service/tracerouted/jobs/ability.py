"""What can be traced now: whether some ready prober can do what a request asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from ..model import LEAST_SIZE, Family, InvalidRequest, Problem, Protocol, TraceRequest
from ..probing.prober import Prober
from .engine import NotReady, Unsupported

NOT_READY_RETRY_S = 5


def family_of(address: IPv4Address | IPv6Address) -> Family:
    """An address's family."""
    return Family.IPV4 if address.version == 4 else Family.IPV6


def check_literal(request: TraceRequest, address: IPv4Address | IPv6Address) -> None:
    """Raise `InvalidRequest` where a request for an address contradicts itself."""
    family = family_of(address)
    if request.family not in (None, family):
        raise InvalidRequest((Problem("target", f"{address} is no {request.family} address"),))
    if request.size < LEAST_SIZE[family]:
        raise InvalidRequest((Problem("size", f"must be at least {LEAST_SIZE[family]} with {family}"),))


@frozen
class Ability:
    """What the probers of all families served can do."""

    _probers: Mapping[Family, Prober]

    def check(self, request: TraceRequest, families: Iterable[Family]) -> None:
        """Raise `Unsupported` or `NotReady` for what no ready prober of these families can do."""
        problems = [self._lacking(request, family) for family in families]
        if None in problems:
            return
        for problem in problems:
            if isinstance(problem, Problem):
                raise Unsupported((problem,))
        raise NotReady("; ".join(str(problem) for problem in problems), NOT_READY_RETRY_S)

    def refusal(self, request: TraceRequest, family: Family) -> str | None:
        """Why an address of this family cannot be traced as asked, in words; None if it can."""
        if request.size < LEAST_SIZE[family]:
            return f"size must be at least {LEAST_SIZE[family]} with {family}"
        lacking = self._lacking(request, family)
        return lacking.detail if isinstance(lacking, Problem) else lacking

    def _lacking(self, request: TraceRequest, family: Family) -> Problem | str | None:
        """Why a family cannot trace this: a `Problem` of the request, or words about its prober; None if it can."""
        prober = self._probers.get(family)
        if prober is None:
            return f"{family} is not served"
        capabilities = prober.capabilities
        if capabilities is None:
            return f"{family} cannot be traced now: {prober.unready_reason}"
        if request.protocol not in capabilities.protocols:
            able = ", ".join(sorted(capabilities.protocols))
            return Problem("protocol", f"{request.protocol} over {family} is not available here; choose from {able}")
        if request.protocol is Protocol.UDP and not capabilities.constant_flow_udp:
            return Problem(
                "protocol",
                f"mtr-packet {capabilities.version} cannot keep udp over {family} on one path; choose icmp or tcp,"
                " or run a newer mtr-packet",
            )
        return None
