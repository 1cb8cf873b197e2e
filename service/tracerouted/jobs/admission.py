"""Which accepted trace runs next: in order of arrival, within the limits on how many run. Pure.

A trace whose destination prefix is busy waits aside without holding up those behind it, and is first in line when
its prefix has room again.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

from attrs import Factory, define, field

J = TypeVar("J")


@define(eq=False)
class Admission(Generic[J]):
    """`most_running` traces in all, `most_per_prefix` of them to one prefix."""

    most_running: int
    most_per_prefix: int
    _ready: deque[tuple[str, J]] = field(init=False, default=Factory(deque))
    _held: dict[str, deque[J]] = field(init=False, default=Factory(dict))
    _running: Counter[str] = field(init=False, default=Factory(Counter))
    _admitted: set[J] = field(init=False, default=Factory(set))
    waiting: int = field(init=False, default=0)

    def join(self, prefix: str, job: J) -> None:
        """A trace wants to run."""
        self.waiting += 1
        self._ready.append((prefix, job))

    def leave(self, prefix: str, job: J) -> None:
        """A trace ended, whether it was waiting or running."""
        held = self._held.get(prefix)
        if job in self._admitted:
            self._admitted.remove(job)
            self._running[prefix] -= 1
            if not self._running[prefix]:
                del self._running[prefix]
            if held:
                self._ready.appendleft((prefix, held.popleft()))
        else:
            self.waiting -= 1
            if held is not None and job in held:
                held.remove(job)
            else:
                self._ready.remove((prefix, job))
        if held is not None and not held:
            del self._held[prefix]

    @property
    def running(self) -> int:
        """How many traces have been let in and have not left."""
        return len(self._admitted)

    def next(self) -> J | None:
        """The trace to start now, counted as running from here on; None while there is no room."""
        while self._ready and self.running < self.most_running:
            prefix, job = self._ready.popleft()
            if self._running[prefix] >= self.most_per_prefix:
                self._held.setdefault(prefix, deque()).append(job)
                continue
            self._running[prefix] += 1
            self._admitted.add(job)
            self.waiting -= 1
            return job
        return None
