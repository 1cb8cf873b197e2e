"""Which of this host's addresses probes to a target leave from."""

from __future__ import annotations

import socket

#: Nothing is sent: connecting a datagram socket only asks the kernel's routing table (connect(2), ip(7)).
_ANY_PORT = 9


def source_address(target: str) -> str:
    """The local address the kernel would use towards `target`, both as text. Raises OSError without a route."""
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target, _ANY_PORT))
        return str(probe.getsockname()[0])
