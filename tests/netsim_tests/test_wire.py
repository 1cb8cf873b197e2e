"""Packets: right checksums and right shapes, whatever the probe."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim import wire

PROBER = {4: ip_address("44.0.0.2").packed, 6: ip_address("2a10:44::2").packed}
TARGET = {4: ip_address("44.2.0.9").packed, 6: ip_address("2a10:44:2000::9").packed}
ROUTER = {4: ip_address("44.2.0.1").packed, 6: ip_address("2a10:44:2000::1").packed}


def words_sum(data: bytes) -> int:
    """The ones' complement sum, word by word (RFC 1071); 0xFFFF over anything that holds its own checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def probe(version: int, protocol: int, transport: bytes, ttl: int = 7) -> bytes:
    """An IP packet from the prober to the target."""
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(transport), protocol, ttl) + PROBER[6] + TARGET[6] + transport
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(transport), 0, 0, ttl, protocol)
    check = 0xFFFF - words_sum(head + PROBER[4] + TARGET[4])
    return head + check.to_bytes(2, "big") + PROBER[4] + TARGET[4] + transport


def transport_of(packet: bytes, protocol: int) -> bytes:
    """The payload of an answer, after checking its IP header and the payload's checksum."""
    if packet[0] >> 4 == 4:
        assert 0xFFFF == words_sum(packet[:20])
        assert len(packet) == int.from_bytes(packet[2:4], "big")
        body = packet[20:]
        pseudo = packet[12:20] + struct.pack("!HH", protocol, len(body)) if protocol != wire.ICMP else b""
        assert protocol == packet[9]
    else:
        body = packet[40:]
        assert len(body) == int.from_bytes(packet[4:6], "big")
        pseudo = packet[8:40] + struct.pack("!II", len(body), protocol)
        assert protocol == packet[6]
    assert 0xFFFF == words_sum(pseudo + body)
    return body


versions = st.sampled_from([4, 6])


@given(version=versions, payload=st.binary(max_size=1400), quote=st.none() | st.integers(28, 200))
def test_errors_quote_the_probe_and_are_summed_right(version: int, payload: bytes, quote: int | None) -> None:
    """An ICMP error quotes the probe with the TTL it had left, under right checksums."""
    sent = probe(version, 17, payload)
    form = wire.ErrorForm(kind=11, code=0, spent=6, quote=quote)
    body = transport_of(
        wire.error(wire.Envelope(version, ROUTER[version], 60), form)(sent), 1 if version == 4 else 58
    )
    quoted = body[8:]
    most = quote or (548 if version == 4 else 1232)
    assert len(quoted) == min(len(sent), most)
    assert quoted[8 if version == 4 else 7] == 1
    start = 20 if version == 4 else 40
    assert quoted[start:] == sent[start:most]
    if version == 4:
        assert 0xFFFF == words_sum(quoted[:20])


@given(
    version=versions,
    stack=st.lists(
        st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 7), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_label_stacks_are_extensions(version: int, stack: list[tuple[int, int, int]]) -> None:
    """A label stack follows 128 quoted bytes as an extension structure with a checksum of its own."""
    form = wire.ErrorForm(kind=11, code=0, spent=0, mpls=tuple(wire.MplsEntry(*entry) for entry in stack))
    answer = wire.error(wire.Envelope(version, ROUTER[version], 60), form)(probe(version, 17, b"x" * 32))
    body = transport_of(answer, 1 if version == 4 else 58)
    assert (32 if version == 4 else 16) == body[5 if version == 4 else 4]
    extension = body[8 + 128 :]
    assert 0x20 == extension[0]
    assert 0xFFFF == words_sum(extension)
    words = struct.unpack(f"!{len(stack)}I", extension[8:])
    found = [(word >> 12, word >> 9 & 7, word & 255, word >> 8 & 1) for word in words]
    assert [(*entry, int(depth == len(stack))) for depth, entry in enumerate(stack, 1)] == found


@given(version=versions, rest=st.binary(min_size=4, max_size=1400))
def test_echo_replies_return_what_was_sent(version: int, rest: bytes) -> None:
    """An echo reply has the identifier, sequence and data of the request."""
    sent = probe(version, 1 if version == 4 else 58, bytes((8 if version == 4 else 128, 0, 0, 0)) + rest)
    body = transport_of(wire.echo_reply(wire.Envelope(version, TARGET[version], 60))(sent), 1 if version == 4 else 58)
    assert (0 if version == 4 else 129) == body[0]
    assert rest == body[4:]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("accept", "flags"), [(True, 0x12), (False, 0x14)])
def test_ports_answer_a_syn(version: int, accept: bool, flags: int) -> None:
    """A SYN is acknowledged, with SYN from an open port and with RST from a closed one."""
    syn = struct.pack("!HHIIBBHHH", 33001, 80, 0xFFFFFFFF, 0, 0x50, 2, 1000, 0, 0)
    answer = wire.tcp_answer(wire.Envelope(version, TARGET[version], 60), accept)(probe(version, 6, syn))
    assert answer is not None
    source, destination, _, ack, _, found = struct.unpack_from("!HHIIBB", transport_of(answer, 6))
    assert (80, 33001, 0, flags) == (source, destination, ack, found)


@pytest.mark.parametrize("version", [4, 6])
def test_a_finished_connection_is_reset(version: int) -> None:
    """A FIN gets a reset and a bare ACK nothing, so nothing is retransmitted."""
    build = wire.tcp_answer(wire.Envelope(version, TARGET[version], 60), True)
    fin = struct.pack("!HHIIBBHHH", 33001, 80, 5, 77, 0x50, 0x11, 1000, 0, 0)
    answer = build(probe(version, 6, fin))
    assert answer is not None
    assert (77, 0x04) == (struct.unpack_from("!I", transport_of(answer, 6), 4)[0], transport_of(answer, 6)[13])
    ack = struct.pack("!HHIIBBHHH", 33001, 80, 5, 77, 0x50, 0x10, 1000, 0, 0)
    assert build(probe(version, 6, ack)) is None


@given(version=versions, payload=st.binary(max_size=700))
def test_udp_services_answer_from_their_port(version: int, payload: bytes) -> None:
    """A UDP answer goes back to where the question came from, with a right checksum."""
    sent = probe(version, 17, struct.pack("!HHHH", 40000, 7, 8 + len(payload), 0) + payload)
    answer = wire.udp_answer(wire.Envelope(version, TARGET[version], 60), lambda asked: asked[::-1])(sent)
    assert answer is not None
    body = transport_of(answer, 17)
    assert (7, 40000, 8 + len(payload)) == struct.unpack_from("!HHH", body)
    assert payload[::-1] == body[8:]
