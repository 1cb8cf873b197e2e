"""Faults as data: a fake mtr-packet that misbehaves at its N-th read, its N-th answer or its N-th spawn.

A `Script` holds the faults and counts, over all processes of one address family, reads of commands, lines written and
spawns. `ScriptedClock` spawns children that follow it. What the imagined network did with every probe is kept, so
that a trace can be held against it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import EACCES, EAGAIN, EMFILE, ENOENT, ENOMEM, EPERM
from ipaddress import ip_address
from typing import Any

from attrs import Factory, define, frozen

from fake_mtr_packet import GARBAGE
from fakes import FakeMtr, FakeProcess, ProcessClock
from tracerouted.model import Family
from tracerouted.mtrpacket.codec import spend_sequence

#: How far away a target is; the router before the last is silent.
LENGTH = 5
SILENT_TTL = 3
#: A router on nobody's path.
STRANGER = {Family.IPV4: "192.0.2.66", Family.IPV6: "2001:db8::66"}
_WORDS = "something went wrong: Bad file descriptor\n"
_NO_SOCKETS = "Failure to open IPv4 sockets: Permission denied\n"


@frozen
class Fault:
    """Something that goes wrong the `at`-th time its `kind` could strike, and if `again` every `at`-th time."""

    kind: str
    at: int = 1
    again: bool = False

    def strikes(self, count: int) -> bool:
        return count % self.at == 0 if self.again else count == self.at


@define
class Script:
    """The faults of one family's children. `off` ends them all: whoever is spawned, reads or writes then is well.

    `words`: what is said instead of the answer to a target's first probe with a TTL, with `{router}` and `{target}`.
    """

    faults: tuple[Fault, ...] = ()
    words: Mapping[int, str] = Factory(dict)
    version: str = "0.95"
    said: set[tuple[str, int]] = Factory(set)
    counted: Counter[str] = Factory(Counter)
    struck: Counter[str] = Factory(Counter)
    off: bool = False

    def next(self, place: str) -> str | None:
        """Something of this kind happens: which fault strikes, if any."""
        self.counted[place] += 1
        for fault in self.faults:
            if KINDS[fault.kind].place == place and fault.strikes(self.counted[place]) and not self.off:
                self.struck[fault.kind] += 1
                return fault.kind
        return None


def router(target: str, ttl: int) -> str:
    """Who answers for a TTL on the way to a target."""
    return target if ttl >= LENGTH else str(ip_address(target) - 200 + ttl)


@dataclass
class ScriptedMtr(FakeMtr):
    """An mtr-packet on a path of its own to each target. `asked`: the target and TTL of each token."""

    asked: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    #: per target and TTL: how many probes nothing was to come back for
    silenced: Counter[tuple[str, int]] = field(default_factory=Counter)

    def answer(self, line: bytes) -> list[tuple[float, bytes]]:
        words = line.split()
        values = dict(zip(words[2::2], words[3::2], strict=True))
        target = values.get(b"ip-4") or values.get(b"ip-6")
        if target not in (None, b"x", b"127.0.0.1", b"::1"):
            to, ttl = target.decode(), int(values[b"ttl"])
            self.asked[words[0]] = (to, ttl)
            hops = tuple(router(to, each) if each != SILENT_TTL else None for each in range(1, LENGTH))
            self.hops = self.hops6 = hops
            if ttl == SILENT_TTL:
                self.silenced[to, ttl] += 1
        return super().answer(line)


class ScriptedProcess(FakeProcess):
    """A child that follows its clock's script for its family."""

    clock: ScriptedClock

    def __init__(self, clock: ScriptedClock, protocol: Any, fake: ScriptedMtr, pid: int) -> None:
        super().__init__(clock, protocol, fake, pid)
        self.family = protocol._owner.family
        self.script = clock.scripts[self.family]
        self.deaf = False
        self.mute = False
        self.answered: list[bytes] = []

    def writeSomeData(self, data: bytes) -> int:
        """Of the thousands of commands that only use up sequence numbers one will do."""
        spent = spend_sequence(1, self.family)
        if data.startswith(spent + spent):
            super().writeSomeData(spent)
            return len(data)
        return super().writeSomeData(data)

    def _flush(self) -> None:
        if self.deaf:
            self._scheduled = False
            return
        if self._buffer and not self.stopped and not self._exiting:
            kind = self.script.next("read")
            if kind is not None:
                self._scheduled = False
                KINDS[kind].strike(self)
                return
        super()._flush()

    def say(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            if self.reaped or self.stopped or self.mute or self._exiting:
                return
            line = self._worded(line)
            kind = self.script.next("write")
            if kind is None:
                super().say(line)
            else:
                spoiled = KINDS[kind].strike(self, line)
                if spoiled:
                    super().say(spoiled)
            self.answered.append(line.split()[0])

    def _worded(self, line: bytes) -> bytes:
        """The answer, in the words the script has for it."""
        token = line.split()[0]
        asked = self.fake.asked.get(token)
        if asked is None or asked[1] not in self.script.words or asked in self.script.said:
            return line
        self.script.said.add(asked)
        target, ttl = asked
        return b"%b %b\n" % (token, self.script.words[ttl].format(router=router(target, ttl), target=target).encode())

    def silence(self, line: bytes) -> None:
        """Nothing comes back for this probe, and the prober cannot know that something could."""
        asked = self.fake.asked.get(line.split()[0])
        if asked is not None:
            self.fake.silenced[asked] += 1


class ScriptedClock(ProcessClock):
    """A virtual clock whose children follow the script of their family."""

    Process = ScriptedProcess

    def __init__(self, scripts: dict[Family, Script]) -> None:
        super().__init__(self._make)
        self.scripts = scripts
        self.silenced: Counter[tuple[str, int]] = Counter()
        self._family = Family.IPV4

    def spawnProcess(self, processProtocol: Any, *args: Any, **more: Any) -> FakeProcess:
        self._family = processProtocol._owner.family
        return super().spawnProcess(processProtocol, *args, **more)

    def _make(self) -> ScriptedMtr:
        script = self.scripts[self._family]
        kind = script.next("spawn")
        fake = ScriptedMtr(silenced=self.silenced, version=script.version)
        fake.faults.flood_bytes = 20_000
        if kind is not None:
            KINDS[kind].strike(fake)
        return fake


# --- what can go wrong -------------------------------------------------------------------------------------------


@frozen
class Kind:
    """A kind of fault: where it strikes, what it does (see below), how long until the family can trace again.

    `strike` is given: at a spawn the new fake (it may raise), at a read the process, at a write the process and the
    line, and says what is written instead. `harmless`: traces under way notice nothing at all.
    """

    place: str
    strike: Callable[..., Any]
    recovers_s: float = 6.5
    harmless: bool = False


def _raise(error: OSError) -> Callable[[ScriptedMtr], None]:
    def strike(fake: ScriptedMtr) -> None:
        raise error

    return strike


def _refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _spawned_with(**faults: Any) -> Callable[[ScriptedMtr], None]:
    def strike(fake: ScriptedMtr) -> None:
        for name, value in faults.items():
            assert hasattr(fake.faults, name)
            setattr(fake.faults, name, value)

    return strike


def _exits(process: ScriptedProcess, line: bytes = b"") -> None:
    process.fake.faults.stderr = _WORDS
    process.exit(1)


def _killed(process: ScriptedProcess, line: bytes = b"") -> None:
    process.exit(None, 9)


def _killed_in_mid_line(process: ScriptedProcess, line: bytes) -> bytes:
    process.exit(None, 11)
    return line[: len(line) // 2]


def _read_after_its_end(process: ScriptedProcess, line: bytes) -> bytes:
    process.exit(None, 9)
    process.pid = None  # type: ignore[assignment]  # reaped
    return line


def _stops(process: ScriptedProcess, line: bytes = b"") -> None:
    process.stopped = True


def _stops_reading(process: ScriptedProcess) -> None:
    process.deaf = True


def _is_slow(process: ScriptedProcess) -> None:
    """The child is quick, but we hear late that the pipe has taken what was written."""
    producer, process._producer = process._producer, None
    FakeProcess._flush(process)
    process._producer = producer
    if producer is not None:
        process.clock.callLater(0.25, lambda: process.reaped or producer.resumeProducing())


def _closes_stdin(process: ScriptedProcess) -> None:
    process.deaf = True
    process._producer.stopProducing()


def _closes_stdout(process: ScriptedProcess, line: bytes) -> None:
    process.mute = True


def _forgets(process: ScriptedProcess, line: bytes) -> None:
    process.silence(line)


def _tarries(process: ScriptedProcess, line: bytes) -> None:
    process.silence(line)
    process.clock.callLater(1.5, FakeProcess.say, process, line)


def _floods_stderr(process: ScriptedProcess, line: bytes) -> bytes:
    process.protocol.errReceived(b"warning: \xff\x00 out of words\n" * 100_000)
    return line


def _in_two_reads(process: ScriptedProcess, line: bytes) -> None:
    process.protocol.outReceived(line[: len(line) // 2])
    process.protocol.outReceived(line[len(line) // 2 :])


def _to_a_stranger(process: ScriptedProcess, token: bytes) -> bytes:
    family = process.family
    return b"%b ttl-expired ip-%d %b round-trip-time 1\n" % (token, family.version, STRANGER[family].encode())


def _for_an_old_token(process: ScriptedProcess, line: bytes) -> bytes:
    open_ = {b"%d" % token for token in process.protocol._in_flight}
    old = next((token for token in process.answered if token not in open_), b"0")
    return _to_a_stranger(process, old) + line


def _stolen(process: ScriptedProcess, line: bytes) -> bytes:
    other = Family.IPV6 if process.family is Family.IPV4 else Family.IPV4
    words = (line.split()[0], other.version, STRANGER[other].encode())
    return b"%b ttl-expired ip-%d %b round-trip-time 1\n" % words


def _instead(words: bytes) -> Callable[[ScriptedProcess, bytes], bytes]:
    return lambda process, line: b"%b %b\n" % (line.split()[0], words)


def _rtt(change_us: int) -> Callable[[ScriptedProcess, bytes], bytes]:
    def strike(process: ScriptedProcess, line: bytes) -> bytes:
        head, separator, rtt = line.partition(b"round-trip-time ")
        return head + separator + b"%d\n" % (int(rtt) + change_us) if separator else line

    return strike


#: Not tried again in haste (see `Pace.failed_test_s`).
SLOW_S = 16.0

KINDS: dict[str, Kind] = {
    # the child, about to read commands
    "exits reading": Kind("read", _exits),
    "killed reading": Kind("read", _killed),
    "stops": Kind("read", _stops, 8.5),
    "stops reading": Kind("read", _stops_reading, 8.5),
    "we are slow": Kind("read", _is_slow, 9.0),
    "closes stdin": Kind("read", _closes_stdin, 8.5),
    # the child, about to write a line
    "exits writing": Kind("write", _exits),
    "killed writing": Kind("write", _killed),
    "killed in mid line": Kind("write", _killed_in_mid_line),
    "reaped, then read": Kind("write", _read_after_its_end),
    "stops writing": Kind("write", _stops, 8.5),
    "closes stdout": Kind("write", _closes_stdout, 8.5),
    "forgets": Kind("write", _forgets, 7.0),
    "tarries": Kind("write", _tarries, SLOW_S),
    "floods stderr": Kind("write", _floods_stderr, harmless=True),
    "floods stdout": Kind("write", lambda process, line: process.fake.flood + line, harmless=True),
    "garbage": Kind("write", lambda process, line: GARBAGE + line, harmless=True),
    "line in two reads": Kind("write", _in_two_reads, harmless=True),
    "says it twice": Kind("write", lambda process, line: line * 2, harmless=True),
    "token never sent": Kind("write", lambda p, line: _to_a_stranger(p, b"2147483647") + line, harmless=True),
    "token of old": Kind("write", _for_an_old_token, harmless=True),
    "line too long": Kind("write", lambda process, line: line[:-1] + b" and so on" * 500 + b"\n", SLOW_S),
    "unknown word": Kind("write", _instead(b"what-is-this even"), SLOW_S),
    "stolen": Kind("write", _stolen, SLOW_S),
    "impossible address": Kind("write", _instead(b"ttl-expired ip-4 0.0.0.0 round-trip-time 1"), SLOW_S),
    "exhausted": Kind("write", _instead(b"probes-exhausted"), SLOW_S),
    "no descriptors": Kind("write", _instead(b"unexpected-error errno 24"), SLOW_S),
    "address in use": Kind("write", _instead(b"address-in-use"), SLOW_S),
    "bare no-route": Kind("write", _instead(b"no-route"), SLOW_S),
    "permission denied": Kind("write", _instead(b"permission-denied"), SLOW_S),
    "no-reply too soon": Kind("write", _instead(b"no-reply"), SLOW_S),
    "rtt an hour long": Kind("write", _rtt(3_600_000_000), harmless=True),
    "rtt negative": Kind("write", _rtt(-3_600_000_000), harmless=True),
    # whoever spawns it
    "missing": Kind("spawn", _raise(FileNotFoundError(ENOENT, "no such file")), SLOW_S),
    "not executable": Kind("spawn", _raise(PermissionError(EACCES, "permission denied")), SLOW_S),
    "not permitted": Kind("spawn", _raise(PermissionError(EPERM, "not permitted")), SLOW_S),
    "no processes": Kind("spawn", _raise(_refused(EAGAIN)), 6.5),
    "no memory": Kind("spawn", _raise(_refused(ENOMEM)), 6.5),
    "no files": Kind("spawn", _raise(_refused(EMFILE)), 6.5),
    "exits at once": Kind("spawn", _spawned_with(exit_at_spawn=1, stderr=_WORDS), 6.5),
    "no sockets": Kind("spawn", _spawned_with(exit_at_spawn=1, stderr=_NO_SOCKETS), SLOW_S),
    "deaf": Kind("spawn", _spawned_with(deaf=True), 9.5),
    "datagram sockets": Kind("spawn", _spawned_with(datagram=True), SLOW_S + 5),
    "no loopback": Kind("spawn", _spawned_with(no_loopback=True), SLOW_S),
    "no constant flow": Kind("spawn", _spawned_with(flow_broken=True), 4.0),
}
