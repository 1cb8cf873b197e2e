"""The line protocol: only well-formed commands leave; whatever comes in, something sensible comes out."""

import re
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.model import Family, MplsLabel, Protocol
from tracerouted.mtrpacket.codec import MAX_COMMAND, MAX_LINE, MAX_TEXT, Decoder, Feature, RawReply, Word, prepare

LINE = re.compile(
    rb"\d{1,10} send-probe ip-([46]) [0-9a-f.:]+ local-ip-\1 [0-9a-f.:]+ protocol (icmp|udp|tcp|sctp)"
    rb" size \d{2,4} tos \d{1,3} timeout \d{1,2}( port \d{1,5})? ttl \d{1,3}( local-port \d{4,5})?\n"
)
KIND = {
    "protocol": Protocol.ICMP,
    "address": "192.0.2.9",
    "source_address": "198.51.100.7",
    "port": None,
    "size": 64,
    "tos": 0,
    "timeout_s": 2,
}

tokens = st.integers(1, 2**31 - 1)
v4 = st.ip_addresses(v=4).filter(lambda a: not a.is_multicast and int(a) not in (0, 2**32 - 1))
v6 = st.ip_addresses(v=6).filter(lambda a: not a.is_multicast and int(a) != 0)
labels = st.builds(MplsLabel, st.integers(0, 2**20 - 1), st.integers(0, 7), st.integers(0, 1), st.integers(0, 255))


@st.composite
def answers(draw):
    """A reply with an address, and the line mtr-packet prints for it."""
    word, name = draw(
        st.sampled_from(
            [
                (Word.REPLY, "reply"),
                (Word.TTL_EXPIRED, "ttl-expired"),
                (Word.NO_ROUTE, "no-route"),
                (Word.NO_ROUTE, "no-route-host"),
                (Word.NO_ROUTE, "no-route-network"),
            ]
        )
    )
    token, address = draw(tokens), draw(v4 | v6)
    rtt = draw(st.integers(-(2**31), 2**31 - 1))
    stack = tuple(draw(st.lists(labels, max_size=8)))
    family = Family.IPV4 if address.version == 4 else Family.IPV6
    line = f"{token} {name} ip-{address.version} {address} round-trip-time {rtt}"
    if stack:
        line += " mpls " + ",".join(str(number) for label in stack for number in label)
    return RawReply(token, word, family, str(address), rtt, stack), line.encode() + b"\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(answers(), max_size=6), st.lists(st.integers(0, 5000), max_size=8))
def test_replies_survive_any_chunking(sent, places):
    """Every well-formed reply is decoded exactly, in order, wherever the reads end."""
    decoder = Decoder()
    got = [raw for piece in cut(b"".join(line for _, line in sent), places) for raw in decoder.feed(piece)]
    assert [raw for raw, _ in sent] == got


noise = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b"\n",
            b" ",
            b"1 ",
            b"reply ",
            b"ip-4 ",
            b"192.0.2.1 ",
            b"round-trip-time ",
            b"mpls ",
            b"1,2,3,4",
            b"x" * 1500,
        ]
    ),
    max_size=30,
).map(b"".join)


@given(noise, st.lists(st.integers(0, 5000), max_size=8))
def test_any_bytes_in_any_chunks_mean_the_same(data, places):
    """Noise never raises, is never kept beyond the bound, and decodes the same however it is cut."""
    whole, pieces = Decoder(), Decoder()
    expected = whole.feed(data)
    got = []
    for piece in cut(data, places):
        got += pieces.feed(piece)
        assert len(pieces._partial) <= MAX_LINE
    assert expected == got
    assert whole.oversized == pieces.oversized
    for raw in got:
        assert 0 <= raw.token < 10**10
        assert len(raw.text) <= MAX_TEXT
        assert raw.text.isascii()
        assert raw.text == "" or raw.text.isprintable()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"7 no-reply", RawReply(7, Word.NO_REPLY, text="no-reply")),
        (b"7 probes-exhausted", RawReply(7, Word.EXHAUSTED, text="probes-exhausted")),
        (b"7 no-route", RawReply(7, Word.NO_ROUTE, text="no-route")),
        (b"7 no-route-network", RawReply(7, Word.NO_ROUTE, text="no-route-network")),
        (b"7 no-route-host", RawReply(7, Word.NO_ROUTE, text="no-route-host")),
        (b"7 network-down", RawReply(7, Word.REFUSED, text="network-down")),
        (b"7 host-down", RawReply(7, Word.REFUSED, text="host-down")),
        (b"7 permission-denied", RawReply(7, Word.REFUSED, text="permission-denied")),
        (b"7 address-in-use", RawReply(7, Word.ADDRESS_IN_USE, text="address-in-use")),
        (b"7 address-not-available", RawReply(7, Word.REFUSED, text="address-not-available")),
        (b"7 wait-tcp-respone-timeout", RawReply(7, Word.TIMED_OUT, text="wait-tcp-respone-timeout")),
        (b"7 unexpected-error errno 104", RawReply(7, Word.ERRNO, errno=104, text="unexpected-error errno 104")),
        (b"7 invalid-argument", RawReply(7, Word.REFUSED, text="invalid-argument")),
        (
            b"7 invalid-argument reason ip-version-not-supported",
            RawReply(7, Word.REFUSED, text="invalid-argument reason ip-version-not-supported"),
        ),
        (b"7 unknown-command", RawReply(7, Word.REFUSED, text="unknown-command")),
        (b"7 feature-support support 0.95", RawReply(7, Word.SUPPORT, text="0.95")),
        (b"0 command-parse-error", RawReply(0, Word.REFUSED, text="command-parse-error")),
        (b"0 command-buffer-overflow", RawReply(0, Word.REFUSED, text="command-buffer-overflow")),
        (b"7 frobnicated by 12", RawReply(7, Word.UNKNOWN, text="frobnicated by 12")),
        (b"7 fr\x00b\xffed", RawReply(7, Word.UNKNOWN, text="fr?b?ed")),
        (b"x reply", RawReply(0, Word.UNKNOWN, text="x reply")),
        (b"-7 reply", RawReply(0, Word.UNKNOWN, text="-7 reply")),
        (b"12345678901 no-reply", RawReply(0, Word.UNKNOWN, text="12345678901 no-reply")),
        (b"7", RawReply(0, Word.UNKNOWN, text="7")),
    ],
)
def test_vocabulary(line, expected):
    """Each bare reply mtr-packet 0.95 and newer can print is known; others keep their printable text."""
    assert [expected] == Decoder().feed(line + b"\n")


@pytest.mark.parametrize(
    "rest",
    [
        b"reply ip-4 192.0.2.1",
        b"reply ip-4 192.0.2.1 round-trip-time",
        b"reply ip-4 192.0.2.1 round-trip-time 1_0",
        b"reply ip-4 192.0.2.1 round-trip-time --1",
        b"reply ip-4 192.0.2.1 round-trip-time 123456789012",
        b"reply ip-4 192.0.2.1 elapsed 1",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,2,3",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,2,3,x",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1048576,0,0,1",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,8,0,1",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,0,2,1",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,0,0,256",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mpls 1,0,0,1,1,8,1,1",
        b"reply ip-4 192.0.2.1 round-trip-time 1 mood 4",
        b"reply ip-4 2001:db8::1 round-trip-time 1",
        b"reply ip-6 192.0.2.1 round-trip-time 1",
        b"reply ip-4 192.0.2.01 round-trip-time 1",
        b"reply ip-5 192.0.2.1 round-trip-time 1",
        b"reply",
        b"ttl-expired",
    ],
)
def test_a_malformed_answer_is_unknown(rest):
    """An answer that is not exactly of the known form is not believed, and its text is kept."""
    assert [RawReply(7, Word.UNKNOWN, text=rest.decode())] == Decoder().feed(b"7 " + rest + b"\n")


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1%eth0"])
def test_addresses_no_router_can_have(address):
    """The unspecified, broadcast, multicast and zoned addresses are no responders."""
    version = 6 if ":" in address else 4
    (raw,) = Decoder().feed(f"7 ttl-expired ip-{version} {address} round-trip-time 1\n".encode())
    assert (raw.word, raw.address) == (Word.IMPOSSIBLE, None)


def test_addresses_are_canonical():
    """An address is written as Python writes it, so that it can be compared with the target's."""
    (raw,) = Decoder().feed(b"7 reply ip-6 ::1.2.3.4 round-trip-time 1\n")
    assert str(IPv6Address("::102:304")) == raw.address


def test_of_oversized_lines_only_the_token_is_believed():
    """A line longer than the bound, whole or in pieces, is one answer nobody understands, to the command it names if
    it names one; the rest up to its LF is skipped, and the next line is heard."""
    decoder = Decoder()
    unknown = RawReply(7, Word.UNKNOWN, text="reply ip-4 192.0.2.1 round-trip-time 1")
    line = b"7 reply ip-4 192.0.2.1 round-trip-time 1"
    assert [unknown] == decoder.feed(line.ljust(MAX_LINE + 1) + b"\n")
    said = decoder.feed(line.ljust(MAX_LINE))
    for _ in range(100):
        said += decoder.feed(b" " * 500)
    assert [unknown] == said
    assert [RawReply(7, Word.NO_REPLY, text="no-reply")] == decoder.feed(b"x\n7 no-reply\n")
    assert [RawReply(0, Word.UNKNOWN, text="x" * MAX_TEXT)] == decoder.feed(b"x" * (MAX_LINE + 1) + b"\n")
    assert decoder.oversized == 3


def test_known_addresses_are_bounded():
    """A flood of different responders does not grow the table of known addresses without end."""
    decoder = Decoder()
    for number in range(10_000):
        address = IPv4Address(0x0A000000 + number)
        decoder.feed(f"7 reply ip-4 {address} round-trip-time 1\n".encode())
    assert max(len(known) for _, known in decoder._addresses.values()) <= 4096


@st.composite
def kinds(draw):
    """Arguments of `prepare` that it must accept."""
    protocol = draw(st.sampled_from(Protocol))
    addresses = draw(st.sampled_from([v4, st.ip_addresses(v=6).filter(lambda a: int(a) != 0)]))
    target, source = draw(addresses), draw(addresses)
    most = {Protocol.UDP: 32999}.get(protocol, 65535)
    return {
        "protocol": protocol,
        "address": str(target),
        "source_address": str(source),
        "port": None if protocol is Protocol.ICMP else draw(st.none() | st.integers(1, most)),
        "size": draw(st.integers(28 if target.version == 4 else 48, 1500)),
        "tos": draw(st.integers(0, 255)),
        "timeout_s": draw(st.integers(1, 60)),
    }


@given(kinds(), tokens, st.integers(1, 255), st.none() | st.integers(1024, 32999))
def test_every_probe_is_one_line_of_the_grammar(kind, token, ttl, source_port):
    """Whatever may be prepared becomes one printable line of bounded length, with its values where they belong."""
    prepared = prepare(**kind)
    if kind["protocol"] is not Protocol.UDP:
        source_port = None
    line = prepared.line(token, ttl, source_port)
    assert LINE.fullmatch(line)
    assert len(line) <= MAX_COMMAND
    words = line.split()
    values = dict(zip(words[2::2], words[3::2], strict=True))
    assert str(token).encode() == words[0]
    assert str(ttl).encode() == values[b"ttl"]
    version = prepared.family.version
    assert kind["address"] == values[f"ip-{version}".encode()].decode()
    assert (None if kind["port"] is None else str(kind["port"]).encode()) == values.get(b"port")
    assert (None if source_port is None else str(source_port).encode()) == values.get(b"local-port")


@given(st.text() | st.sampled_from(["192.0.2.1\n1 x", "127.1", "0x7f000001", "fe80::1%eth0", "192.0.2.1 ", "::", ""]))
def test_only_addresses_can_be_targets(text):
    """A target that is not strictly an address never becomes a command."""
    try:
        line = prepare(**KIND | {"address": text}).line(1, 1, None)
    except ValueError:
        return
    assert LINE.fullmatch(line)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "0.0.0.0"},
        {"source_address": "0.0.0.0"},
        {"source_address": "2001:db8::1"},
        {"address": "fe80::1%1", "source_address": "fe80::2"},
        {"port": 80},
        {"protocol": Protocol.UDP, "port": 33000},
        {"protocol": Protocol.TCP, "port": 0},
        {"protocol": Protocol.TCP, "port": 65536},
        {"protocol": "gre"},
        {"size": 27},
        {"size": 1501},
        {"address": "2001:db8::1", "source_address": "2001:db8::2", "size": 47},
        {"tos": -1},
        {"tos": 256},
        {"timeout_s": 0},
        {"timeout_s": 61},
    ],
)
def test_what_must_not_be_sent_is_refused(wrong):
    """Values outside the bounds are refused when the probes are prepared."""
    with pytest.raises(ValueError, match=r".+"):
        prepare(**KIND | wrong)


@pytest.mark.parametrize(
    ("protocol", "ttl", "source_port"),
    [("udp", 0, None), ("udp", 256, None), ("udp", 1, 1023), ("udp", 1, 33000), ("tcp", 1, 2000), ("icmp", 1, 2000)],
)
def test_a_probe_that_cannot_be_sent_is_refused(protocol, ttl, source_port):
    """A TTL or source port outside the bounds is refused per probe."""
    with pytest.raises(ValueError, match=r".+"):
        prepare(**KIND | {"protocol": protocol}).line(1, ttl, source_port)


def test_questions():
    """A feature is asked for in the words of mtr-packet(8)."""
    assert Feature.IPV6.line(5) == b"5 check-support feature ip-6\n"
