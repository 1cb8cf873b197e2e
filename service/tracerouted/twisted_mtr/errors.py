"""What `mtr` and `utils` raise."""


class MTRError(Exception):
    """A trace was asked for that cannot be run."""


class SocketError(Exception):
    """A text is not an IP address."""


class StateError(Exception):
    """Something was asked for too early."""
