"""Where the benchmarks run: a chain of real routers, and the simulated internet.

Both are `Ground`s: `popen` starts a program in the prober's network namespace, `way` is the true route to a target.

`Chain` makes one network namespace per router, each held by a process that ends when its standard input does, so that
nothing is left behind however the benchmark ends. Link i joins 44.3.8.(2i) and 44.3.8.(2i+1); router i answers from
its side towards the prober, 44.3.8.(2i-1). Everything in 44.3.0.0/22 is the last host. A silent router has no route
for what it sends itself; what it forwards passes. ICMP rate limits (icmp(7), icmp_ratemask) are off.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field

from .routes import Route, lines_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from netsim import Lab, namespace  # noqa: E402  # the simulated internet belongs to the tests

_TARGETS = "44.3.0.0/22"
_MOST_TARGETS = 1000


class Ground(Protocol):
    """A network to trace through."""

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` in the prober's network namespace."""

    @property
    def targets(self) -> list[str]:
        """Addresses to trace."""

    def way(self, target: str) -> Route:
        """The true route: who is at each TTL, None where nobody answers."""


class Here:
    """Wherever the program runs: for subjects that send no packet."""

    targets: list[str] = []  # noqa: RUF012  # nobody changes it

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """See `Ground.popen`."""
        return subprocess.Popen(command, **options)

    def way(self, target: str) -> Route:
        """See `Ground.way`; no way leads anywhere."""
        raise KeyError(target)


@define
class Chain:
    """`length` routers in a row, those in `silent` (by TTL) mute; a context manager."""

    length: int = 10
    silent: frozenset[int] = frozenset()
    _holders: list[subprocess.Popen[str]] = field(init=False, factory=list)

    def __enter__(self) -> Chain:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for holder in self._holders:
            if holder.stdin is not None:
                holder.stdin.close()
        for holder in self._holders:
            holder.wait(10)
            if holder.stdout is not None:
                holder.stdout.close()
        self._holders.clear()

    def _build(self) -> None:
        for _ in range(self.length + 2):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo; exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._holders.append(holder)
        for holder in self._holders:
            assert holder.stdout is not None
            if holder.stdout.readline() != "\n":
                raise RuntimeError("no network namespaces here (unshare --net failed)")
        last = len(self._holders) - 1
        for place in range(last):
            self._ip(place, f"link add right type veth peer name left netns {self._holders[place + 1].pid}")
        for place in range(last + 1):
            commands = ["link set lo up"]
            if place > 0:
                commands += [f"addr add 44.3.8.{2 * place - 1}/31 dev left", "link set left up"]
            if place < last:
                commands += [
                    f"addr add 44.3.8.{2 * place}/31 dev right",
                    "link set right up",
                    f"route add 44.3.0.0/22 via 44.3.8.{2 * place + 1}",
                ]
            else:
                commands.append(f"route add local {_TARGETS} dev lo")
            if place == 0:
                commands.append(f"route add 44.3.8.0/24 via 44.3.8.{2 * place + 1}")
            if place > 1:
                commands.append(f"route add 44.3.8.0/32 via 44.3.8.{2 * place - 2}")
            if place in self.silent:
                commands.append("rule add iif lo blackhole pref 5")
            self._ip(place, *commands)
            self._run(
                place,
                "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/icmp_ratemask;"
                " echo 0 > /proc/sys/net/ipv4/icmp_ratelimit",
            )
        self._verify()

    def _ip(self, place: int, *commands: str) -> None:
        self._run(place, "ip -batch -", "\n".join(commands) + "\n")

    def _run(self, place: int, script: str, text: str = "") -> None:
        enter = ["nsenter", "--target", str(self._holders[place].pid), "--net", "sh", "-ec", script]
        done = subprocess.run(enter, input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the chain of routers cannot be set up: {done.stderr.strip()}")

    def _verify(self) -> None:
        """Warm the neighbour tables, then see that every router is where it should be."""
        target = self.targets[0]
        expected = self.way(target)
        out = ""
        for _ in range(2):
            with self.popen(["mtr-packet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prober:
                out = prober.communicate("".join(lines_of([target], "44.3.8.0", self.length + 1)))[0]
        found: dict[int, str] = {}
        for reply in out.splitlines():
            words = reply.split()
            if len(words) > 3:
                found[int(words[0])] = words[3]
        if tuple(found.get(ttl) for ttl in range(1, self.length + 2)) != expected:
            raise RuntimeError(f"the chain of routers answers {found}, it should be {expected}")

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """See `Ground.popen`."""
        pid = self._holders[0].pid
        return subprocess.Popen(command, preexec_fn=lambda: namespace.enter(pid), **options)

    @property
    def targets(self) -> list[str]:
        """See `Ground.targets`: up to a thousand."""
        return [f"44.3.{n // 250}.{n % 250 + 1}" for n in range(_MOST_TARGETS)]

    def way(self, target: str) -> Route:
        """See `Ground.way`."""
        hops = [None if ttl in self.silent else f"44.3.8.{2 * ttl - 1}" for ttl in range(1, self.length + 1)]
        return (*hops, target)


@define
class Simulated:
    """One scenario of the simulated internet, whose targets are copies of one another."""

    _lab: Lab
    _ways: dict[str, Route]

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """See `Ground.popen`."""
        return self._lab.popen(command, **options)

    @property
    def targets(self) -> list[str]:
        """See `Ground.targets`."""
        return list(self._ways)

    @property
    def lab(self) -> Lab:
        """The simulator's handle."""
        return self._lab

    def way(self, target: str) -> Route:
        """See `Ground.way`."""
        return self._ways[target]


@contextmanager
def simulated(
    *, routers: int, rtt_ms: float, copies: int, silent: Sequence[int] = (), target_silent: bool = False
) -> Iterator[Simulated]:
    """`copies` targets, each in its own /24, behind `routers` routers of its own, `rtt_ms` away; RTTs grow evenly."""
    mute = {str(ttl): {"silent": True} for ttl in silent}
    target: dict[str, Any] = {"name": "bench", "at": 100, "path": list(range(1, routers + 1)), "rtt": rtt_ms}
    target |= {"truth": [{"stop": "reached", "hops": ["100"]}]}
    if copies > 1:
        target["count"] = copies
    if target_silent:
        target |= {"echo": False, "udp": "silent", "tcp": "silent"}
    document = {
        "name": "bench",
        "ipv4": "44.144.0.0/12",
        "hop_ms": rtt_ms / (routers + 1),
        "routers": mute,
        "targets": [target],
    }
    with Lab.start([document], private=True) as lab:
        ways: dict[str, Route] = {}
        (scenario,) = lab.scenarios
        for spec in scenario.targets:
            addresses = [scenario.address("ipv4", number, spec) for number in range(1, routers + 1)]
            hops = [None if ttl in silent else address for ttl, address in enumerate(addresses, 1)]
            address = scenario.address("ipv4", spec.at, spec)
            ways[address] = (*hops, None if target_silent else address)
        yield Simulated(lab, ways)
