"""The names of addresses (PTR records), asked of name servers while traces run, and remembered.

Nothing waits for a name: an address without an answer in time has none. What is under way is bounded and shared, so
a silent name server costs at most `concurrent` sockets and a bounded queue. A name is whatever the owner of an
address wrote, so only names of letters, digits, hyphens and underscores pass (`presentable`); the rest is no name.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure

from .cache import TtlCache
from .dnsclient import Answer, DnsClient
from .errors import LookUpFailed, NoSuchName
from .lookups import DeadlinePassed, LookUps, QueueFull

#: Seconds a name is kept: what the records say, within these bounds.
LEAST_TTL_S, MOST_TTL_S = 60, 86_400
#: Seconds it is remembered that an address has no name (RFC 2308 leaves it to the resolver), or that nobody answered.
NO_NAME_TTL_S = 600
NO_ANSWER_TTL_S = 30

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def presentable(name: bytes) -> str | None:
    """A name as it may be shown, in lower case without a final dot; None when it is not one.

    Labels consist of letters, digits, hyphens (not at either end) and underscores; the last is not a number, since a
    name like 192.0.2.1 would pass for an address.
    """
    text = name.decode("ascii", "replace").lower().removesuffix(".")
    labels = text.split(".")
    if len(text) > 253 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return text


@define(eq=False)
class ReverseNames:
    """Reverse names by way of `client`: `concurrent` look-ups at once, `waiting` more in the queue.

    The answers about `kept` addresses, those asked for last, are remembered until their time is over. `deadline_s`
    bounds one asker's wait, time in the queue included.
    """

    _clock: IReactorTime
    _client: DnsClient
    _concurrent: int = 32
    _waiting: int = 4096
    _kept: int = 16_384
    _deadline_s: float = 5.0
    _cache: TtlCache[str, str | None] = field(init=False)
    lookups: LookUps[str, str | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._cache = TtlCache(self._kept)
        self.lookups = LookUps(self._clock, self._look_up, self._concurrent, self._waiting, self._deadline_s)

    def hostname(self, address: str) -> Deferred[str | None]:
        """The name of an IPv4 or IPv6 address; None when it has none, or none that is presentable, or none was found
        in time. It has fired already when the answer is remembered. It fails only by being cancelled."""
        known = self._cache.get(address, self._clock.seconds(), "")  # no name is ""
        if known != "":
            return succeed(known)
        return self.lookups.ask(address).addErrback(_unknown)

    def stop(self) -> None:
        """Give up all look-ups; whoever waits gets `CancelledError`."""
        self.lookups.stop()

    def _look_up(self, address: str) -> Deferred[str | None]:
        """Ask, and remember the answer whoever still waits for it."""
        asked = self._client.ask(ip_address(address).reverse_pointer, dns.PTR)
        return asked.addCallbacks(self._found, self._failed, callbackArgs=(address,), errbackArgs=(address,))

    def _found(self, answer: Answer, address: str) -> str | None:
        names = filter(None, (presentable(record.name.name) for record in answer.records))
        name = min(names, default=None)  # servers shuffle: the same one whatever the order
        ttl = min(max(answer.ttl, LEAST_TTL_S), MOST_TTL_S) if answer.records else NO_NAME_TTL_S
        self._cache.put(address, name, ttl, self._clock.seconds())
        return name

    def _failed(self, failure: Failure, address: str) -> None:
        if not isinstance(failure.value, LookUpFailed):
            failure.raiseException()
        ttl = NO_NAME_TTL_S if isinstance(failure.value, NoSuchName) else NO_ANSWER_TTL_S
        self._cache.put(address, None, ttl, self._clock.seconds())


def _unknown(failure: Failure) -> None:
    """No answer in time, or no place to wait for one, is no name."""
    if not isinstance(failure.value, DeadlinePassed | QueueFull):
        failure.raiseException()
