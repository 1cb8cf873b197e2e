"""What simulated hosts answer on UDP ports: a function of the payload, None for silence.

A scenario names one as the state of a port (`udp_ports = {7 = "echo"}`). A service that needs to be elsewhere than
in this process does not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .dns import Names

Service = Callable[[bytes], bytes | None]


def udp_services(names: Names) -> Mapping[str, Service]:
    """The services by name; "dns" is a name server that knows `names`, "dns-servfail" one that is of no use."""
    return {
        "open": lambda payload: None,
        "echo": lambda payload: payload,
        "dns": names.answer,
        "dns-servfail": names.fail,
    }
