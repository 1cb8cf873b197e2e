"""Why a look-up gave nothing. `str()` of each is a plain sentence for whoever asked."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure


class LookUpFailed(Exception):
    """A look-up gave no answer to use."""


class NoSuchName(LookUpFailed):
    """The name does not exist."""


class NoAddress(LookUpFailed):
    """The name exists but has no address, or none of the family asked for."""


class NoAnswer(LookUpFailed):
    """Nobody answered in time, or only with a failure: nothing is known about the name."""


class TooManyLookUps(LookUpFailed):
    """Too many other look-ups are under way and waiting."""


#: The ways a look-up ends, as they are counted; `outcome` gives one of them.
OUTCOMES = ("found", "no_such_name", "no_address", "no_answer", "refused", "given_up", "broken")


def outcome(result: object) -> str:
    """How a look-up ended that gave `result`: a value, or a `Failure`."""
    if not isinstance(result, Failure):
        return "found"
    match result.value:
        case NoSuchName():
            return "no_such_name"
        case NoAddress():
            return "no_address"
        case NoAnswer():
            return "no_answer"
        case TooManyLookUps():
            return "refused"
        case CancelledError():
            return "given_up"
    return "broken"
