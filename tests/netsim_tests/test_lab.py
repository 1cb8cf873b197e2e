"""The simulated internet under the real mtr-packet: every bundled scenario, in every protocol and family."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from attrs import evolve

from netsim import Lab, LabError, available, judge, namespace
from netsim.reference import Plan, send, trace
from netsim.scenario import FAMILIES, PROTOCOLS

TESTS = Path(__file__).parents[1]


def plan(lab: Lab, target: str, family: str, protocol: str, max_ttl: int, rounds: int = 1) -> Plan:
    """Probes to a target; UDP keeps its flow where mtr-packet 0.95 can (over IPv6 none of its probes would match)."""
    ports = {"icmp": "", "tcp": "port 80", "udp": "port 32434"}[protocol]
    if (family, protocol) == ("ipv4", "udp"):
        ports += " local-port 30001"
    return Plan(
        address=lab.address(target, family),
        family=family,
        protocol=protocol,
        max_ttl=max_ttl,
        rounds=rounds,
        timeout_s=2 if target == "high-rtt" else 1,
        extra=ports,
    )


def complaints(lab: Lab, target: str, family: str, protocol: str) -> list[str]:
    """What the judge has against one plain trace. Loss is compared with what the simulator dealt."""
    truth = lab.truth(target, family, protocol)
    if (family, protocol) == ("ipv6", "udp"):
        truth = evolve(truth, mixed=len(truth.ways) > 1)
    # The plain tracer flags nothing.
    truth = evolve(truth, rate_limited=frozenset())
    longest = max(map(len, truth.ways)) + 4
    found = trace(plan(lab, target, family, protocol, longest, rounds=1 if target == "high-rtt" else 3))
    wrong = judge(found, truth, lab.dealt(target, family, protocol), rtt_tolerance_us=2_000_000)
    return [f"{target} {family} {protocol}: {complaint}" for complaint in wrong]


@pytest.mark.parametrize("name", available())
def test_mtr_packet_finds_the_truth(lab: Lab, name: str) -> None:
    """Everything mtr-packet sees of a scenario is what the file says, and lost is only what was to be lost."""
    targets = [t.name for s in lab.scenarios if s.name == name for t in s.targets if t.truth]
    # mtr-packet knows TCP probes by their source port alone, so those must not run beside others (mtr#408).
    apart = [(t, f, p) for p in PROTOCOLS if p != "tcp" for f in FAMILIES for t in targets]
    with ThreadPoolExecutor(4) as threads:
        found = [c for some in threads.map(lambda case: complaints(lab, *case), apart) for c in some]
    for family in FAMILIES:
        for target in targets:
            found += complaints(lab, target, family, "tcp")
    assert [] == found


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_times_are_the_simulated_ones(lab: Lab, family: str) -> None:
    """No RTT is below the simulated one, and the median is at most a few milliseconds above."""
    truth = lab.truth("plain", family, "icmp")
    true = {ttl: hop.rtt_us for ttl, hop in enumerate(truth.ways[0], 1)}
    medians = []
    for _ in range(5):  # one quiet moment in five is enough to tell; being early is never right
        found = send(evolve(plan(lab, "plain", family, "icmp", 11, rounds=8), pause_s=0.003))
        excess = [(probe.rtt_us or 0) - true[ttl] for ttl, probe in found]
        assert min(excess) >= 0
        medians.append(median(excess))
        if medians[-1] < 3_000:
            break
    assert min(medians) < 3_000


def test_the_sink_counts_what_arrives(lab: Lab) -> None:
    """Each probe is counted once under its TTL, and nothing else."""
    for protocol in PROTOCOLS:
        send(plan(lab, "plain", "ipv4", protocol, 13, rounds=2))
        cells = lab.dealt("plain", "ipv4", protocol)
        assert set(range(1, 14)) == set(cells)
        if protocol != "tcp":  # a TCP probe may have to be sent again
            assert {2} == {cell["received"] for cell in cells.values()}
    counters = lab.counters()
    assert {} == counters["stray"]
    assert 0 == counters["dropped"]
    assert {"plain"} == {name for name, families in counters["targets"].items() if any(families.values())}


def test_packets_to_nowhere_are_stray(lab: Lab) -> None:
    """Whatever leaves for an address that is no target is counted under it."""
    for address in ("192.0.2.1", "10.1.2.3"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (address, 9))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("fc00::1", 9))
    assert {"192.0.2.1": 1, "10.1.2.3": 1, "fc00::1": 1} == lab.counters()["stray"]


def test_ordinary_sockets_reach_simulated_services(lab: Lab) -> None:
    """A UDP service of a simulated host answers an ordinary socket, and a TCP port an ordinary connection."""
    for family, number in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):
        with socket.socket(number, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"hello", (lab.address("open-udp", family), 7))
            answer, peer = sock.recvfrom(100)
            assert (b"hello", lab.address("open-udp", family), 7) == (answer, peer[0], peer[1])
        with socket.create_connection((lab.address("closed-tcp", family), 443), 10):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((lab.address("closed-tcp", family), 80), 10)


def answered(lab: Lab, target: str, max_ttl: int) -> list[str | None]:
    """Who answers ICMP probes of TTL 1, 2, ..."""
    return [probe.address for _, probe in send(plan(lab, target, "ipv4", "icmp", max_ttl))]


def test_a_running_scenario_can_be_changed(lab: Lab) -> None:
    """Scenarios come and go, paths change and answers pause while the simulator runs."""
    document = {
        "name": "live",
        "ipv4": "44.2.7.0/24",
        "ipv6": "2a10:44:2007::/48",
        "targets": [{"name": "live", "at": 9, "path": [1, 2]}],
    }
    lab.load(document)
    try:
        assert ["44.2.7.1", "44.2.7.2", "44.2.7.9"] == answered(lab, "live", 3)
        lab.change("live", path=[5])
        assert ["44.2.7.5", "44.2.7.9"] == answered(lab, "live", 2)
        lab.pause("live")
        assert [None] == answered(lab, "live", 1)
        lab.resume("live")
        assert ["44.2.7.5"] == answered(lab, "live", 1)
    finally:
        lab.unload("live")
    assert [None] == answered_stray(lab, "44.2.7.9")
    with pytest.raises(LabError, match="KeyError"):
        lab.call("change", target="live", fields={})


def answered_stray(lab: Lab, address: str) -> list[str | None]:
    """Who answers one ICMP probe to any address."""
    return [probe.address for _, probe in send(Plan(address=address, family="ipv4", protocol="icmp", max_ttl=1))]


def test_ways_change_by_themselves(lab: Lab) -> None:
    """The bundled changing target takes another way after forty probes and falls silent after eighty."""
    before = answered(lab, "changing", 5)
    for _ in range(7):
        answered(lab, "changing", 5)
    after = answered(lab, "changing", 6)
    prefix = "44.1.21."
    assert [prefix + n for n in ("1", "2", "3", "4", "100")] == before
    assert [prefix + n for n in ("1", "2", "5", "6", "7", "100")] == after
    for _ in range(6):
        answered(lab, "changing", 6)
    assert None is answered(lab, "changing", 6)[5]


# --- namespaces ----------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """The environment of a fresh process that is to make a namespace of its own."""
    kept = {key: value for key, value in os.environ.items() if key != namespace.ISOLATED}
    return {**kept, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1", **more}


COMMAND = [sys.executable, "-m", "netsim", "run", "plain", "--"]
PROBE = ["sh", "-c", "(echo 7 send-probe ip-4 44.1.1.100 local-ip-4 44.0.0.2 ttl 2; sleep 0.5) | mtr-packet"]


@pytest.mark.usefixtures("internet")
def test_commands_run_in_a_simulated_internet() -> None:
    """`python -m netsim run` gives a command a simulated internet and passes its exit code on."""
    done = subprocess.run([*COMMAND, *PROBE], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("7 ttl-expired ip-4 44.1.1.2 round-trip-time "), done.stderr
    script = "from netsim import Lab; lab = Lab.attach(); print(lab.targets()[0], lab.counters()['read'])"
    asked = subprocess.run(
        [*COMMAND, sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert asked.stdout.endswith(" 0\n"), asked.stderr
    failed = subprocess.run([*COMMAND, "sh", "-c", "exit 3"], env=environment(), timeout=60)
    assert 3 == failed.returncode


@pytest.mark.usefixtures("internet")
def test_no_privilege_is_needed_where_user_namespaces_are(open_tun: str, nobody: list[str]) -> None:
    """An ordinary user gets a simulated internet through a user namespace."""
    done = subprocess.run(
        [*nobody, *COMMAND, *PROBE],
        env=environment(**{namespace.TUN: open_tun}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "NamespaceUnavailable" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.startswith("7 ttl-expired ip-4 44.1.1.2 round-trip-time "), done.stderr


@pytest.mark.usefixtures("internet")
def test_a_private_lab_is_apart() -> None:
    """A private lab has a namespace of its own, and this process stays where it was."""
    home = namespace.current()
    with Lab.start(["plain"], private=True) as lab:
        done = lab.run(PROBE)
        assert done.stdout.startswith("7 ttl-expired ip-4 44.1.1.2 "), done.stderr
        with lab.inside():
            assert home != namespace.current()
        assert home == namespace.current()


@pytest.mark.usefixtures("internet")
def test_a_second_lab_in_one_namespace_is_refused() -> None:
    """Two simulators can not share a namespace, and the message says that one does not start."""
    with pytest.raises(namespace.NamespaceUnavailable, match="did not start"):
        Lab.start(["plain"])


@pytest.mark.usefixtures("internet")
def test_a_killed_owner_leaves_nothing_behind() -> None:
    """The simulator ends with the process that started it, even when that is killed."""
    script = (
        "from netsim import Lab, isolate\nimport time\nisolate()\nlab = Lab.start(['plain'])\n"
        "print(lab.pid, lab.control, flush=True)\ntime.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    simulator, control = owner.stdout.readline().split()
    descriptor = os.pidfd_open(int(simulator))
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    ended, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    assert ended
    assert not Path(control).exists()
