"""How fast and how exact the simulator is on this machine: `python -m netsim measure`."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from statistics import quantiles

from .lab import Lab
from .namespace import SOURCES
from .reference import Plan, send
from .truth import Expected

PACKETS, WINDOW = 100_000, 4_000


def measure(say: Callable[[str], object]) -> None:
    """Start a simulator in the present namespace, and say what one plain sender and one mtr-packet see of it."""
    with Lab.start(["large/many"]) as lab:
        say(f"capacity: {_capacity(lab):,.0f} ICMP probes/s answered, {WINDOW} under way at a time")
    with Lab.start(["plain"]) as lab:
        for pause in (0.005, 0.0005):
            median, most = _excess(lab, pause)
            say(
                f"RTT above the simulated one, a probe every {pause * 1000:g} ms through mtr-packet: "
                f"median {median:.0f} us, 99th percentile {most:.0f} us"
            )
        say(f"lateness of the simulator's own answers: {lab.counters()['lateness']}")


def _capacity(lab: Lab) -> float:
    source = SOURCES[0].packed
    probes = []
    for target in lab.targets():
        address = socket.inet_aton(lab.address(target, "ipv4"))
        for ttl in range(1, 12):
            header = struct.pack("!BBHHHBBH", 0x45, 0, 64, 0, 0, ttl, 1, 0) + source + address
            probes.append((header + struct.pack("!BBHHH36x", 8, 0, 0, 1, ttl), (socket.inet_ntoa(address), 0)))
    sink = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sent, began = 0, time.monotonic()
    with sink:
        while sent < PACKETS:
            for probe, address_and_port in probes:
                sink.sendto(probe, address_and_port)
            sent += len(probes)
            while sent - lab.call("figures")["read"] > WINDOW:
                time.sleep(0.005)
        while lab.call("figures")["written"] < sent:
            time.sleep(0.005)
    return sent / (time.monotonic() - began)


def _excess(lab: Lab, pause_s: float) -> tuple[float, float]:
    truth = lab.truth("plain", "ipv4", "icmp")
    plan = Plan(address=truth.address, family="ipv4", protocol="icmp", max_ttl=11, rounds=100, pause_s=pause_s)
    hops: dict[int, Expected] = dict(enumerate(truth.ways[0], 1))
    found = [probe.rtt_us - hops[ttl].rtt_us for ttl, probe in send(plan) if probe.rtt_us is not None]
    cuts = quantiles(found, n=100)
    return cuts[49], cuts[98]
