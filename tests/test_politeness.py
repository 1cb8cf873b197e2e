"""How many packets leave, and when: the limits that spare others, counted at the sink with the real daemon.

Times are those of packets leaving, so a busy machine can only make them later: every bound is on a count over a span
that begins with the first packet, and leaves half a second's worth for that one being late.
"""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from daemon_process import daemon
from netsim import Lab
from sink import Packet, listening

LATE_S = 0.5
#: Nobody answers there: a trace takes about a second, and sends all the while.
SILENT = {"max_ttl": 2, "probes": 4, "interval_ms": 200, "timeout_ms": 200, "resolve_names": False}


def most_at_once(packets: list[Packet]) -> int:
    """How many targets were being probed at one time, each from its first packet to its last."""
    spans: dict[object, list[float]] = {}
    for packet in packets:
        spans.setdefault(packet.to, [packet.at, packet.at])[1] = packet.at
    return max(sum(first <= at <= last for first, last in spans.values()) for at, _ in spans.values())


def test_traces_per_prefix(internet: Lab) -> None:
    """Never more than TRACES_PER_PREFIX traces to one /24 or /48 are under way; others wait queued, hold up nobody
    else, and all finish."""
    crowds = ["44.3.1.{}", "44.3.2.{}", "2a10:44:3001::{}", "2a10:44:3001:ff::{}"]
    prefixes = ["44.3.1.0/24", "44.3.2.0/24", "2a10:44:3001::/48"]
    with daemon(traces_per_prefix="2") as service, listening(service.port) as sink:
        ids = [
            service.post({**SILENT, "target": crowd.format(n)}).json["id"] for n in range(1, 5) for crowd in crowds
        ]
        waiting = service.get("/traces?status=queued&limit=100").json["traces"]
        assert 4 * len(crowds) - 2 * len(prefixes) == len(waiting)
        assert {"completed"} == {trace["status"] for trace in service.finished(ids)}
        packets = sink.packets()
    for text in prefixes:
        assert 2 == most_at_once([packet for packet in packets if packet.to in ip_network(text)])
    assert 4 * len(crowds) == len({packet.to for packet in packets})


def test_probes_per_second(internet: Lab) -> None:
    """Twenty traces at once, in both families, send no more than PROBES_PER_SECOND, and all end where they should."""
    rate = 100
    crowd = {"name": "crowd", "count": 10, "at": 100, "path": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}
    internet.load(
        {"name": "crowds", "summary": "", "ipv4": "44.2.0.0/16", "ipv6": "2a10:44:2000::/36", "targets": [crowd]}
    )
    targets = [internet.address(f"crowd-{n}", family) for n in range(10) for family in ("ipv4", "ipv6")]
    with daemon(probes_per_second=str(rate)) as service, listening(service.port) as sink:
        ids = [service.post({"target": target, "probes": 1, "resolve_names": False}).json["id"] for target in targets]
        assert {"reached"} == {trace["stop_reason"] for trace in service.finished(ids)}
        packets = sink.packets()
    internet.unload("crowds")
    assert len(packets) > 11 * len(targets)
    assert len(packets) <= rate / 10 + rate * (packets[-1].at - packets[0].at + LATE_S)


@pytest.mark.parametrize("together", [True, False], ids=["together", "in_turn"])
def test_target_probes_per_second(internet: Lab, together: bool) -> None:
    """Traces to one target, side by side or one after the other, send no more than TARGET_PROBES_PER_SECOND after
    the first hundred."""
    rate = 50
    document = {"target": internet.address("plain", "ipv4"), "probes": 5, "interval_ms": 10, "resolve_names": False}
    with daemon(target_probes_per_second=str(rate)) as service, listening(service.port) as sink:
        traces = []
        if together:
            traces = service.finished([service.post(document).json["id"] for _ in range(4)])
        else:
            traces = [service.post(document, Prefer="wait=60").json for _ in range(4)]
        assert {"reached"} == {trace["stop_reason"] for trace in traces}
        packets = sink.packets()
    assert len(packets) > 4 * 5 * 11
    assert len(packets) <= 100 + rate * (packets[-1].at - packets[0].at + LATE_S)


def test_surplus_beyond_the_target(lab: Lab) -> None:
    """Beyond the target go at most the rest of the first window, once, and a scout; where the length is remembered,
    the scout alone."""
    with daemon() as service:
        for family in ("ipv4", "ipv6"):
            for remembered in (False, True):
                lab.reset("plain")
                document = {"target": lab.address("plain", family), "probes": 3, "resolve_names": False}
                trace = service.post(document, Prefer="wait=60").json
                assert ("reached", 11) == (trace["stop_reason"], trace["hop_count"])
                got = {ttl: cell["received"] for ttl, cell in lab.dealt("plain", family, "icmp").items()}
                beyond = {ttl: count for ttl, count in got.items() if ttl > 11}
                assert set(range(1, 12)) <= set(got)
                if remembered:
                    assert set(beyond) <= {64}, beyond
                assert set(beyond) <= {*range(12, 20), 64}, beyond
                assert {1} >= set(beyond.values()), beyond
