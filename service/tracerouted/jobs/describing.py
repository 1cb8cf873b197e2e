"""What is learnt about the responders of one trace: each is asked about once per TTL, and its journal is told."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from ..model import AddressDescribed, Fact, ProbeSettled
from ..naming.describer import Describer, Description
from .journal import Journal


@define(eq=False)
class Describing:
    """One trace's questions under way; `answered` is called when the last of them has been answered."""

    _journal: Journal
    _describer: Describer
    _answered: Callable[[], None]
    _asked: set[tuple[int, str]] = field(init=False, factory=set)
    _pending: set[Deferred[None]] = field(init=False, factory=set)

    @property
    def pending(self) -> bool:
        """Whether something may still be learnt."""
        return bool(self._pending)

    def note(self, fact: Fact) -> None:
        """A fact for the journal, which may name a responder nobody has met at its TTL."""
        self._journal.append(fact)
        if type(fact) is not ProbeSettled or fact.address is None or (fact.ttl, fact.address) in self._asked:
            return
        self._asked.add((fact.ttl, fact.address))
        request = self._journal.request
        for want_name, want_asn in ((request.resolve_names, False), (False, request.lookup_asn)):
            if want_name or want_asn:
                self._ask(fact.ttl, fact.address, want_name, want_asn)

    def _ask(self, ttl: int, address: str, want_name: bool, want_asn: bool) -> None:
        def described(description: Description) -> None:
            self._pending.discard(asked)
            if self._journal.sealed:
                return
            if description.hostname is not None or description.asn is not None:
                self._journal.append(AddressDescribed(ttl, address, description.hostname, description.asn))
            if not self._pending:
                self._answered()

        asked: Deferred[None] = self._describer.describe(address, want_name, want_asn)  # type: ignore[assignment]
        self._pending.add(asked)
        asked.addCallbacks(described, lambda failure: self._pending.discard(asked))

    def stop(self) -> None:
        """Take back what is still asked."""
        for asked in list(self._pending):
            asked.cancel()
        self._pending.clear()
