"""What simulated hosts answer on UDP ports: a function of the payload, None for silence.

A scenario names one as the state of a port (`udp_ports = {7 = "echo"}`). A service that needs to be elsewhere than
in this process does not belong here.
"""

from __future__ import annotations

from collections.abc import Callable

UDP_SERVICES: dict[str, Callable[[bytes], bytes | None]] = {
    "open": lambda payload: None,
    "echo": lambda payload: payload,
}
