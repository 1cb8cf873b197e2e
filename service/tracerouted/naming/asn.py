"""Which autonomous system announces an address, asked of Team Cymru's DNS zones; `asnfile` reads a local file.

A source of AS numbers has one call, `asn(address)`, whose Deferred never fails but by being cancelled; nothing waits
for it. `AsnZones` asks `origin.asn.cymru.com` or `origin6.asn.cymru.com` for the number and `asn.cymru.com` for its
name (https://www.team-cymru.com/ip-asn-mapping), and remembers both. Special addresses are nobody's and are not
asked about.

Names of systems are what their owners wrote: text, without control or invisible characters, of bounded length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure

from ..model import Asn
from .cache import TtlCache
from .dnsclient import Answer, DnsClient
from .errors import LookUpFailed, NoSuchName
from .lookups import DeadlinePassed, LookUps, QueueFull
from .special import IPAddress, special

MOST_NUMBER = 2**32 - 1
MOST_NAME = 100

#: Seconds a found origin or name is kept, whatever the records say: they change by the day, the zones' TTL is hours.
LEAST_TTL_S, MOST_TTL_S = 3600, 86_400
#: Seconds it is remembered that an address is announced by nobody, or that nobody answered.
NO_ORIGIN_TTL_S = 3600
NO_ANSWER_TTL_S = 30

Source = Callable[[str], "Deferred[Asn | None]"]


def as_number(value: object) -> int | None:
    """An AS number from 64500, "64500" or "AS64500"; None for anything else, 0 (RFC 7607) included."""
    if isinstance(value, str):
        digits = value.strip()[:12].upper().removeprefix("AS")
        value = int(digits) if digits.isascii() and digits.isdigit() else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_NUMBER:
        return value
    return None


def as_name(value: object) -> str | None:
    """A system's name as it may be shown: printable, at most `MOST_NAME` characters; None where nothing is left."""
    if not isinstance(value, str):
        return None
    words = "".join(c if c.isprintable() else " " for c in value[: 4 * MOST_NAME]).split()
    return " ".join(words)[:MOST_NAME].rstrip() or None


def either(first: Source, second: Source) -> Source:
    """A source that asks `second` about what `first` does not know."""

    def asn(address: str) -> Deferred[Asn | None]:
        return first(address).addCallback(lambda found: found if found is not None else second(address))

    return asn


def origin_name(address: IPAddress) -> str:
    """The name that has the origin of an address."""
    reverse, zone = address.reverse_pointer, "origin" if address.version == 4 else "origin6"
    return f"{reverse.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}.asn.cymru.com"


def _texts(answer: Answer) -> Iterator[list[str]]:
    """The fields of each TXT record: `64500 | 192.0.2.0/24 | ZZ | arin | 2001-01-01`."""
    for record in answer.records:
        text = b"".join(record.data)[:1024].decode("utf-8", "replace")
        yield [part.strip() for part in text.split("|")]


def origin_in(answer: Answer, address: IPAddress) -> int | None:
    """The AS number of the most specific prefix around `address`; of several origins the least, so that the order
    servers shuffle them into does not show. None where no record is one about this address."""
    found = []
    for fields in _texts(answer):
        if len(fields) < 2:
            continue
        try:
            network = ip_network(fields[1])
        except ValueError:
            continue
        if network.version == address.version and address in network:
            found += [(-network.prefixlen, number) for word in fields[0].split() if (number := as_number(word))]
    return min(found)[1] if found else None


def name_in(answer: Answer, number: int) -> str | None:
    """The name in `64500 | ZZ | arin | 2001-01-01 | EXAMPLE-AS Example, ZZ`;
    None where no record is about `number`."""
    names = (as_name("|".join(fields[4:])) for fields in _texts(answer) if as_number(fields[0]) == number)
    return min(filter(None, names), default=None)


@define(eq=False)
class AsnZones:
    """AS numbers by way of `client`: `concurrent` look-ups at once of each kind, `waiting` more in a queue.

    The answers about `kept` addresses and as many systems are remembered. `deadline_s` bounds one asker's wait
    for the number, `name_deadline_s` that for the name, without which the number is told alone.
    """

    _clock: IReactorTime
    _client: DnsClient
    _concurrent: int = 32
    _waiting: int = 4096
    _kept: int = 16_384
    _deadline_s: float = 5.0
    _name_deadline_s: float = 1.0
    _origins: TtlCache[str, int | None] = field(init=False)
    _names: TtlCache[int, str | None] = field(init=False)
    origin_lookups: LookUps[str, int | None] = field(init=False)
    name_lookups: LookUps[int, str | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._origins, self._names = TtlCache(self._kept), TtlCache(self._kept)
        self.origin_lookups = LookUps(
            self._clock, self._look_up_origin, self._concurrent, self._waiting, self._deadline_s
        )
        self.name_lookups = LookUps(
            self._clock, self._look_up_name, self._concurrent, self._waiting, self._name_deadline_s
        )

    def asn(self, address: str) -> Deferred[Asn | None]:
        """The system of an IPv4 or IPv6 address; None when nobody announces it, or nothing was found in time.

        It has fired already when the answer is remembered, and for special addresses.
        """
        if special(ip_address(address)) is not None:
            return succeed(None)
        known = self._origins.get(address, self._clock.seconds(), 0)  # no origin is 0
        asked = succeed(known) if known != 0 else self.origin_lookups.ask(address).addErrback(_unknown)
        return asked.addCallback(self._named)

    def stop(self) -> None:
        """Give up all look-ups; whoever waits gets `CancelledError`."""
        self.origin_lookups.stop()
        self.name_lookups.stop()

    def _named(self, number: int | None) -> Asn | Deferred[Asn | None] | None:
        if number is None:
            return None
        known = self._names.get(number, self._clock.seconds(), "")  # no name is ""
        if known != "":
            return Asn(number, known)
        return self.name_lookups.ask(number).addErrback(_unknown).addCallback(lambda name: Asn(number, name))

    def _look_up_origin(self, address: str) -> Deferred[int | None]:
        """Ask, and remember the answer whoever still waits for it."""
        of = ip_address(address)
        asked = self._client.ask(origin_name(of), dns.TXT)
        return asked.addCallback(lambda answer: (origin_in(answer, of), answer.ttl)).addBoth(
            self._remember, self._origins, address
        )

    def _look_up_name(self, number: int) -> Deferred[str | None]:
        asked = self._client.ask(f"AS{number}.asn.cymru.com", dns.TXT)
        return asked.addCallback(lambda answer: (name_in(answer, number), answer.ttl)).addBoth(
            self._remember, self._names, number
        )

    def _remember(self, result: Any, cache: TtlCache[Any, Any], key: object) -> Any:
        """Keep what was found, or that nothing was; returns it."""
        found, ttl = None, NO_ANSWER_TTL_S
        if not isinstance(result, Failure):
            found = result[0]
            ttl = NO_ORIGIN_TTL_S if found is None else min(max(result[1], LEAST_TTL_S), MOST_TTL_S)
        elif isinstance(result.value, NoSuchName):
            ttl = NO_ORIGIN_TTL_S
        elif not isinstance(result.value, LookUpFailed):
            return result
        cache.put(key, found, ttl, self._clock.seconds())
        return found


def _unknown(failure: Failure) -> None:
    """No answer in time, or no place to wait for one, is nothing known."""
    if not isinstance(failure.value, DeadlinePassed | QueueFull):
        failure.raiseException()
