"""A simulated internet for tests, demonstrations and benchmarks.

A simulator process answers, on a TUN device in a network namespace, as routers and hosts described in TOML files
would; the real mtr-packet (or mtr, scamper, a whole daemon) traces through it. Every file also tells the truth a
trace must find, and `judge` compares the two.

    namespace.isolate()                              # this process gets a namespace with no way out
    with Lab.start(["plain", "lossy_middle"]) as lab:
        ...trace lab.address("plain", "ipv4") with whatever is to be tested...
        complaints = judge(trace, lab.truth("plain", "ipv4", "icmp"), lab.dealt("plain", "ipv4", "icmp"))

The rooms: `scenario` reads files, `wire` makes packets, `internet` decides what comes back for a packet (no I/O, no
clock), `simulator` is the process around it, `namespace` the ground it stands on, `lab` the handle of it all; `truth`
and `judge` know what is right. `services` is the place for what simulated hosts answer on UDP ports; `dns` is one of
them, the name server.

Addresses. Nothing leaves the namespace, so targets have addresses that a policy of "globally routable unicast only"
accepts:

    44.0.0.2, 2a10:44::2                the prober (both on the device itself)
    44.1.N.0/24, 2a10:44:1NN::/48       bundled scenario number N (NN in decimal digits), routers and targets
    44.128.0.0/9, 2a10:4480::/32        scenarios with many copies of a target: each in its own /24 and /48
    44.2.0.0/16, 2a10:44:2000::/36      for scenarios made in tests

Anything else is routed to the simulator too, which never answers it and counts it as stray.

Limits: no SCTP at targets (the kernel and mtr-packet of the reference system have none), no IP options, extension
headers or fragments, and one simulator per namespace.
"""

from . import namespace
from .judge import judge
from .lab import Lab, LabError
from .namespace import NamespaceUnavailable, isolate
from .scenario import Scenario, ScenarioError, available, load
from .truth import Expected, Truth, truth_of

__all__ = [
    "Expected",
    "Lab",
    "LabError",
    "NamespaceUnavailable",
    "Scenario",
    "ScenarioError",
    "Truth",
    "available",
    "isolate",
    "judge",
    "load",
    "namespace",
    "truth_of",
]
