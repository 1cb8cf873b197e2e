"""The rows, one module per promise; importing this registers all of them, in this order."""

# ruff: isort: off
from . import one, many, http, capacity, honesty, memory, streams, growth, planning

__all__ = ["capacity", "growth", "honesty", "http", "many", "memory", "one", "planning", "streams"]
