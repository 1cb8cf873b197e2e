"""What is learnt about the responders of one trace: each is asked about once per TTL, and its journal is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from ..model import AddressDescribed, Fact, ProbeSettled
from ..naming.describer import Describer
from .journal import Journal

T = TypeVar("T")


@define(eq=False)
class Describing:
    """One trace's questions under way; `answered` is called when the last of them has been answered."""

    _journal: Journal
    _describer: Describer
    _answered: Callable[[], None]
    _asked: set[tuple[int, str]] = field(init=False, factory=set)
    _pending: set[Deferred[Any]] = field(init=False, factory=set)

    @property
    def pending(self) -> bool:
        """Whether something may still be learnt."""
        return bool(self._pending)

    def note(self, fact: Fact) -> None:
        """A fact for the journal, which may name a responder nobody has met at its TTL."""
        self._journal.append(fact)
        if type(fact) is not ProbeSettled or fact.address is None or (fact.ttl, fact.address) in self._asked:
            return
        ttl, address, request = fact.ttl, fact.address, self._journal.request
        self._asked.add((ttl, address))
        if request.resolve_names:
            asked = self._describer.hostname(address)
            self._ask(asked, lambda hostname: AddressDescribed(ttl, address, hostname, None))
        if request.lookup_asn:
            self._ask(self._describer.asn(address), lambda asn: AddressDescribed(ttl, address, None, asn))

    def _ask(self, asked: Deferred[T | None], described: Callable[[T], Fact]) -> None:
        def answered(found: T | None) -> None:
            self._pending.discard(asked)
            if self._journal.sealed:
                return
            if found is not None:
                self._journal.append(described(found))
            if not self._pending:
                self._answered()

        self._pending.add(asked)
        asked.addCallbacks(answered, lambda failure: self._pending.discard(asked))

    def stop(self) -> None:
        """Take back what is still asked."""
        for asked in list(self._pending):
            asked.cancel()
        self._pending.clear()
