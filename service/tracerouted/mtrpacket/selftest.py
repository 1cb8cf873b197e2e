"""What one mtr-packet process can do, found out by asking and by trying.

Asking isn't enough: without CAP_NET_RAW mtr-packet falls back to datagram sockets, claims to support everything, and
gives wrong answers. The canary tells: a UDP probe to a closed port on the loopback address comes back as `reply` in
raw mode and never in datagram mode. A second canary with a local port tells whether UDP probes of one constant flow
work; mtr-packet 0.95 loses all of them on IPv6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from ..model import Capabilities, Family, Protocol
from .codec import Feature, RawReply, Word, prepare
from .process import MtrProcess

#: What to do when raw sockets are refused.
ADVICE = (
    "Give it CAP_NET_RAW: setcap cap_net_raw+ep on the binary, an ambient capability (systemd: "
    "AmbientCapabilities=CAP_NET_RAW), or --cap-add NET_RAW for a container without no-new-privileges"
)
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
#: UDP ports nobody listens on; two, in case somebody does or a reply is lost.
_CLOSED_PORTS = (1, 4)
_LOCAL_PORTS = (1026, 1028)
_CANARY_TIMEOUT_S = 1
_ROUNDS = 2
_SPEAKS = {
    Feature.ICMP: Protocol.ICMP,
    Feature.UDP: Protocol.UDP,
    Feature.TCP: Protocol.TCP,
    Feature.SCTP: Protocol.SCTP,
}
#: Probes in flight that each version holds (its MAX_PROBES is 1024 before 0.96, 10240 after), with some to spare.
_SLOTS_BEFORE_096 = 1000
_SLOTS = 4000


def slots(version: str) -> int:
    """How many probes a version of mtr-packet may have in flight."""
    match = re.match(r"(\d+)\.(\d+)", version)
    newer = match is not None and (int(match[1]), int(match[2])) >= (0, 96)
    return _SLOTS if newer else _SLOTS_BEFORE_096


class SelfTest:
    """One test of one process. `on_done` gets its capabilities, or why it cannot trace; never both, never twice.

    `known` are the capabilities found earlier: if the version is the same, constant-flow UDP isn't tried again.
    If the process dies first, `on_done` isn't called.
    """

    def __init__(
        self,
        process: MtrProcess,
        family: Family,
        known: Capabilities | None,
        on_done: Callable[[Capabilities | None, str | None], None],
    ) -> None:
        self._process = process
        self._family = family
        self._known = known
        self._on_done = on_done
        self._support: dict[Feature, str] = {}
        self._round = 0
        self._plain: list[RawReply] = []
        self._flow: list[RawReply] | None = None
        self._done = False
        self._ip = Feature.IPV4 if family is Family.IPV4 else Feature.IPV6
        self._asked = (Feature.VERSION, self._ip, *_SPEAKS)

    def start(self) -> None:
        """Put all questions at once."""
        self._try_canaries()
        for feature in self._asked:
            self._process.ask(feature.line, partial(self._supported, feature))

    def _try_canaries(self) -> None:
        self._round += 1
        self._plain.clear()
        for port in _CLOSED_PORTS:
            self._canary(port, None, self._plain)

    def _canary(self, port: int, local_port: int | None, answers: list[RawReply]) -> None:
        loopback = LOOPBACK[self._family]
        prepared = prepare(
            protocol=Protocol.UDP,
            address=loopback,
            source_address=loopback,
            port=port,
            size=64,
            tos=0,
            timeout_s=_CANARY_TIMEOUT_S,
        )

        def answered(raw: RawReply) -> None:
            answers.append(raw)
            self._judge()

        self._process.ask(lambda token: prepared.line(token, 64, local_port), answered, _CANARY_TIMEOUT_S)

    def _supported(self, feature: Feature, raw: RawReply) -> None:
        self._support[feature] = raw.text if raw.word is Word.SUPPORT else ""
        self._judge()

    def _judge(self) -> None:
        if self._done or len(self._support) < len(self._asked):
            return
        if self._support[self._ip] != "ok":
            self._finish(None, f"mtr-packet could not open {self._family} sockets")
            return
        if not self._replied(self._plain):
            if len(self._plain) == len(_CLOSED_PORTS):
                if self._round < _ROUNDS:
                    self._try_canaries()
                else:
                    self._finish(None, self._why(self._plain[-1]))
            return
        version = self._support[Feature.VERSION]
        if self._known is not None and self._known.version == version:
            constant_flow = self._known.constant_flow_udp
        elif self._flow is None:
            self._flow = []
            for port, local_port in zip(_CLOSED_PORTS, _LOCAL_PORTS, strict=True):
                self._canary(port, local_port, self._flow)
            return
        else:
            constant_flow = self._replied(self._flow)
            if not constant_flow and len(self._flow) < len(_LOCAL_PORTS):
                return
        protocols = frozenset(_SPEAKS[feature] for feature in _SPEAKS if self._support[feature] == "ok")
        self._finish(Capabilities(version, protocols, constant_flow, slots(version)), None)

    def _replied(self, answers: list[RawReply]) -> bool:
        loopback = LOOPBACK[self._family]
        return any(raw.word is Word.REPLY and raw.address == loopback for raw in answers)

    def _why(self, raw: RawReply) -> str:
        loopback = LOOPBACK[self._family]
        if raw.word is Word.NO_REPLY:
            return (
                f"mtr-packet got no answer from a closed UDP port on {loopback}: it has no raw sockets and would "
                f"give wrong answers. {ADVICE}"
            )
        said = raw.text or raw.word.value
        return f"mtr-packet cannot probe {loopback} ({said}): this host has no working {self._family} loopback"

    def _finish(self, capabilities: Capabilities | None, reason: str | None) -> None:
        self._done = True
        self._on_done(capabilities, reason)
