"""What mtr-packet says: any bytes in any pieces are decoded alike, within bounds, and judged to something true."""

from __future__ import annotations

from ipaddress import ip_address

from tracerouted.model import Family, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.mtrpacket.codec import MAX_LINE, MAX_TEXT, Decoder, RawReply, Word, prepare
from tracerouted.mtrpacket.verdict import CLOCK_ANOMALY, TOLERANCE_S, judge

from . import Draw

_ADDRESSES = {
    Family.IPV4: {"address": "198.51.100.7", "source_address": "192.0.2.1"},
    Family.IPV6: {"address": "2001:db8::7", "source_address": "2001:db8::1"},
}
_PREPARED = [
    prepare(protocol=protocol, port=None, size=64, tos=0, timeout_s=1, **_ADDRESSES[family])
    for family in Family
    for protocol in Protocol
]
_FROM_SOMEBODY = (ReplyKind.REPLY, ReplyKind.TTL_EXPIRED, ReplyKind.UNREACHABLE)


def run(data: bytes) -> None:
    """Decode and judge."""
    draw = Draw(data)
    elapsed_s, stepped = draw.byte() / 64, bool(draw.byte() & 1)
    pieces = list(draw.chunks())
    whole = b"".join(pieces)
    in_pieces, at_once, byte_by_byte = Decoder(), Decoder(), Decoder()
    found: list[RawReply] = []
    for piece in pieces:
        found += in_pieces.feed(piece)
        assert len(in_pieces._partial) <= MAX_LINE, "it keeps more than a line"
    assert found == at_once.feed(whole)
    assert found == [raw for place in range(len(whole)) for raw in byte_by_byte.feed(whole[place : place + 1])]
    assert in_pieces.oversized == at_once.oversized == byte_by_byte.oversized
    assert found == at_once.feed(b"\n" + whole)[-len(found) :] if found else True  # with all addresses known
    for raw in found:
        _check(raw)
        for prepared in _PREPARED:
            _check_verdict(judge(raw, prepared, elapsed_s, stepped), prepared.family, elapsed_s, stepped)


def _check(raw: RawReply) -> None:
    assert 0 <= raw.token < 10**10
    assert len(raw.text) <= MAX_TEXT
    assert all(" " <= character <= "~" for character in raw.text)
    assert 0 <= raw.errno < 10**5
    if raw.address is None:
        assert raw.rtt_us is None
        assert not raw.mpls
    else:
        assert raw.word in (Word.REPLY, Word.TTL_EXPIRED, Word.NO_ROUTE)
        assert raw.rtt_us is not None
        address = ip_address(raw.address)
        assert raw.address == str(address)
        assert raw.family is not None
        assert raw.family.version == address.version
        assert not address.is_multicast
        assert not address.is_unspecified
    for label in raw.mpls:  # the bounds of the contract (RFC 5462)
        assert 0 <= label.label < 2**20
        assert 0 <= label.tc < 8
        assert 0 <= label.s < 2
        assert 0 <= label.ttl < 256


def _check_verdict(reply: Reply, family: Family, elapsed_s: float, stepped: bool) -> None:
    if reply.kind in _FROM_SOMEBODY:
        assert reply.address is not None
        assert family.version == ip_address(reply.address).version
        if reply.rtt_us is None:
            assert CLOCK_ANOMALY == reply.error
        else:
            assert 0 <= reply.rtt_us <= (elapsed_s + TOLERANCE_S) * 1e6
            assert reply.error is None
    else:
        assert (None, None, ()) == (reply.address, reply.rtt_us, reply.mpls)
        assert (reply.error is None) is (reply.kind is ReplyKind.TIMEOUT)
        if reply.kind is ReplyKind.RETRY:
            RetryReason(reply.error)
