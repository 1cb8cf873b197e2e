"""Look-ups under way: bounded in number, shared between those who ask the same thing, each asker with a deadline.

A look-up may outlive its askers: a thread inside getaddrinfo cannot be interrupted. It then keeps its place
among the `concurrent` ones until it returns, and whoever asks for the same key meanwhile joins it instead of
taking another place. One that was given up before it began never begins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K")
V = TypeVar("V")


class QueueFull(Exception):
    """As many look-ups as may be are under way, and as many as may wait are waiting."""


class DeadlinePassed(Exception):
    """No result in time. `begun` says whether the look-up had left the queue."""

    def __init__(self, begun: bool) -> None:
        super().__init__("no result in time")
        self.begun = begun


@define(eq=False)
class _LookUp(Generic[V]):
    running: Deferred[None] | None = None  # None while it waits in the queue
    askers: list[Deferred[V]] = field(factory=list)


@define(eq=False)
class LookUps(Generic[K, V]):
    """Runs `look_up(key)` for whoever asks: at most `concurrent` at once, at most `waiting` more in a queue.

    `deadline_s` counts from asking, time in the queue included.
    """

    _clock: IReactorTime
    _look_up: Callable[[K], Deferred[V]]
    _concurrent: int
    _waiting: int
    _deadline_s: float
    _under_way: dict[K, _LookUp[V]] = field(factory=dict, init=False)
    _queue: OrderedDict[K, _LookUp[V]] = field(factory=OrderedDict, init=False)  # oldest first
    _beginning: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    def ask(self, key: K) -> Deferred[V]:
        """The result for `key`. Fails with `DeadlinePassed`, with `QueueFull`, or as the look-up does.

        Cancelling it takes back the question; others who asked the same are not affected.
        """
        if self._stopped:
            return fail(CancelledError())
        shared = self._under_way.get(key) or self._queue.get(key)
        if shared is None:
            if len(self._under_way) >= self._concurrent and len(self._queue) >= self._waiting:
                return fail(QueueFull())
            shared = self._queue[key] = _LookUp()
        asker: Deferred[V] = Deferred(lambda asker: self._leave(key, shared, asker))
        asker.addTimeout(self._deadline_s, self._clock, lambda *_: _deadline_passed(shared))
        shared.askers.append(asker)
        self._begin_more()
        return asker

    @property
    def running(self) -> int:
        """How many look-ups are under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many look-ups wait for their turn."""
        return len(self._queue)

    def stop(self) -> None:
        """Cancel every look-up, for good: whoever waits, or asks from now on, gets `CancelledError`."""
        self._stopped = True
        pending = [*self._queue.values(), *self._under_way.values()]
        self._queue.clear()
        self._under_way.clear()
        for shared in pending:
            for asker in list(shared.askers):
                asker.cancel()
            if shared.running is not None:
                shared.running.cancel()

    def _leave(self, key: K, shared: _LookUp[V], asker: Deferred[V]) -> None:
        shared.askers.remove(asker)
        if not shared.askers and self._queue.get(key) is shared:
            del self._queue[key]

    def _begin_more(self) -> None:
        # A look-up may end before it returns: one loop, not a recursion as deep as the queue is long.
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._queue and len(self._under_way) < self._concurrent:
                key, shared = self._queue.popitem(last=False)
                self._under_way[key] = shared
                running = maybeDeferred(self._look_up, key)
                shared.running = running.addBoth(self._ended, key, shared)
        finally:
            self._beginning = False

    def _ended(self, result: V | Failure, key: K, shared: _LookUp[V]) -> None:
        if self._stopped:
            return
        del self._under_way[key]
        askers, shared.askers = shared.askers, []
        for asker in askers:
            asker.callback(result)  # a Failure takes the error path
        self._begin_more()


def _deadline_passed(shared: _LookUp[V]) -> NoReturn:
    raise DeadlinePassed(shared.running is not None)
