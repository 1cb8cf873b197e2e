"""Routes as addresses per TTL, and whether they are true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .table import Runs

#: Who answered at TTL 1, 2, 3...; None where nobody did.
Route = tuple[str | None, ...]


def exact(found: Mapping[str, Sequence[str | None]], way: Callable[[str], Route], targets: Sequence[str]) -> int:
    """How many targets have exactly the true route; silence behind the last answer doesn't matter."""
    return sum(_trimmed(found.get(target, ())) == _trimmed(way(target)) for target in targets)


def _trimmed(route: Sequence[str | None]) -> Route:
    last = max((place for place, address in enumerate(route, 1) if address is not None), default=0)
    return tuple(route[:last])


def judged(
    results: Iterable[Mapping[str, Any]],
    way: Callable[[str], Route],
    targets: Sequence[str],
    measure: Callable[[Mapping[str, Any]], float] = lambda result: result["wall_s"],
) -> Runs:
    """What `measure` makes of the rounds' results, and how many of their `routes` are exact."""
    kept = list(results)
    right = [exact(result["routes"], way, targets) for result in kept]
    return Runs([measure(result) for result in kept], right, len(targets))


def lines_of(targets: Sequence[str], source: str, hops: int) -> list[str]:
    """mtr-packet(8) commands for one ICMP probe to each TTL of each target, with tokens from 1."""
    local = f"local-ip-4 {source} protocol icmp size 64 timeout 1"
    return [
        f"{place * hops + ttl} send-probe ip-4 {target} {local} ttl {ttl}\n"
        for place, target in enumerate(targets)
        for ttl in range(1, hops + 1)
    ]
