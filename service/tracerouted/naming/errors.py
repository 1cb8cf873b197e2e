"""Why a look-up gave nothing. `str()` of each is a plain sentence for whoever asked."""

from __future__ import annotations


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
