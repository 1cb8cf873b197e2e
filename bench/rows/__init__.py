"""The rows, one module per promise; importing this registers all of them."""

from . import capacity, honesty, http, many, memory, one, streams

__all__ = ["capacity", "honesty", "http", "many", "memory", "one", "streams"]
