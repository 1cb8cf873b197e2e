"""Soak: thousands of traces in the simulated internet, by clients of every kind, and what the daemon is like then.

`python -m bench.soak` runs the real daemon; see `__main__` for what it promises, `clients` for what the clients do.
"""

from .. import grounds  # noqa: F401  # makes the simulated internet importable
