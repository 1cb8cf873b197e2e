"""The rows, one module per promise; importing this registers all of them."""

from . import capacity, many

__all__ = ["capacity", "many"]
