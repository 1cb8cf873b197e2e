"""A bounded cache whose entries expire. Pure: time is an argument, in seconds of any one clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from attrs import define, field

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


@define
class TtlCache(Generic[K, V]):
    """Keeps at most `capacity` entries; the one used least recently makes room. What has expired is not returned."""

    _capacity: int
    _entries: OrderedDict[K, tuple[V, float]] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float, default: D) -> V | D:
        """The value put under `key`, or `default` where there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return default
        value, expires_at = entry
        if now >= expires_at:
            del self._entries[key]
            return default
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, ttl: float, now: float) -> None:
        """Keep `value` for `ttl` seconds from `now`; it replaces what was there."""
        self._entries[key] = (value, now + ttl)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
