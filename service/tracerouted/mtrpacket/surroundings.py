"""What an mtr-packet process needs from around it: timers, an owner, and limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall

from ..model import Family

if TYPE_CHECKING:
    from ..probing.prober import Listener
    from .process import MtrProcess


class Timers(Protocol):
    """The part of `IReactorTime` needed here; `seconds` is monotonic."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> IDelayedCall: ...


class Owner(Protocol):
    """Whose process this is: it is the prober that listeners know, and hears about life and death."""

    family: Family
    listener: Listener | None
    counters: Counter[str]

    def process_started(self, process: MtrProcess) -> None:
        """The pipes are connected."""

    def process_ended(self, process: MtrProcess, reason: str) -> None:
        """It is dead and reaped, and answers nothing more. Its probes are handed back after this call."""


@frozen(kw_only=True)
class Limits:
    """Seconds unless named otherwise."""

    lines_per_write: int = 8
    tick_s: float = 0.5  # how often the watchdog looks
    beat_s: float = 1.0  # at least one heartbeat per this long
    answer_s: float = 2.0  # patience with a heartbeat
    grace_s: float = 2.0  # patience with a probe beyond its own timeout
