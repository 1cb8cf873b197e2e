"""AS numbers from MMDB files written for the occasion."""

from __future__ import annotations

import os

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tracerouted.model import Asn
from tracerouted.naming.asnfile import AsnFile, NotAnAsnFile, asn_in

MAXMIND = {
    "192.0.2.0/24": {"autonomous_system_number": 64500, "autonomous_system_organization": "EXAMPLE"},
    "192.0.2.128/25": {"autonomous_system_number": 64502, "autonomous_system_organization": "INNER"},
    "2001:db8::/32": {"autonomous_system_number": 64501, "autonomous_system_organization": "EXAMPLE6"},
}
IPINFO = {"192.0.2.0/24": {"asn": "AS64500", "name": "Example", "domain": "example.net"}}


def write(path, networks, version=6, kind="GeoLite2-ASN"):
    """Make a database and put it in place by renaming."""
    writer = MMDBWriter(version, kind, ipv4_compatible=version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    fresh.rename(path)


def found(source, address):
    """The answer, which is there at once."""
    answers = []
    source.asn(address).addCallback(answers.append)
    (answer,) = answers
    return answer


@pytest.fixture
def path(tmp_path):
    """Where the database is."""
    return tmp_path / "asn.mmdb"


@pytest.fixture
def clock():
    """The clock that says when to look at the file."""
    return Clock()


@pytest.fixture
def errors():
    """What was logged as an error."""
    events = []

    def observe(event):
        if event["log_level"].name == "error":
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def test_both_families(path, clock):
    """IPv4 and IPv6 addresses are found, the most specific network first; others are None."""
    write(path, MAXMIND)
    source = AsnFile(str(path), clock)
    assert Asn(64500, "EXAMPLE") == found(source, "192.0.2.1")
    assert Asn(64502, "INNER") == found(source, "192.0.2.200")
    assert Asn(64501, "EXAMPLE6") == found(source, "2001:db8::1")
    assert found(source, "198.51.100.1") is None
    assert found(source, "2606:4700::1") is None
    assert 0 == source.errors


def test_ipv4_only(path, clock, errors):
    """In a file of IPv4 networks an IPv6 address is not found, which is no error."""
    write(path, IPINFO, version=4, kind="ipinfo asn")
    source = AsnFile(str(path), clock)
    assert Asn(64500, "Example") == found(source, "192.0.2.1")
    assert found(source, "2001:db8::1") is None
    assert [] == errors


@pytest.mark.parametrize(
    "record",
    [
        {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"},
        {"asn": "AS64500", "name": "Example", "domain": "example.net"},
        {"asn": "AS64500", "as_name": "Example", "country": "ZZ"},
        {"asn": "64500", "name": "Example"},
        {"as_number": 64500, "as_description": "Example"},
        {"traits": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}},
        {"as": {"asn": "AS64500", "name": "Example"}, "geo": {"city": "X"}},
    ],
)
def test_layouts(record):
    """The records of the common databases are read, with what they nest."""
    assert Asn(64500, "Example") == asn_in(record)


@pytest.mark.parametrize("record", [None, {}, {"country": {"iso_code": "ZZ"}}, "AS64500", {"asn": ""}, {"asn": 0}])
def test_no_number(record):
    """A record without a number is nothing known, whatever else it holds."""
    assert asn_in(record) is None


def test_number_without_a_name():
    """A number without a name, or with one that cannot be shown, stands alone."""
    assert Asn(64500, None) == asn_in({"autonomous_system_number": 64500})
    assert Asn(64500, None) == asn_in({"asn": "AS64500", "name": "\n"})


def test_unusable_at_start(tmp_path, path, clock):
    """A file that is missing, no database, a directory, or one without AS numbers is an error that says so."""
    with pytest.raises(NotAnAsnFile, match="No such file"):
        AsnFile(str(path), clock)
    with pytest.raises(NotAnAsnFile):
        AsnFile(str(tmp_path), clock)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(NotAnAsnFile, match="valid MaxMind DB"):
        AsnFile(str(path), clock)
    path.write_bytes(b"")
    with pytest.raises(NotAnAsnFile):
        AsnFile(str(path), clock)
    write(path, {"192.0.2.0/24": {"country": {"iso_code": "ZZ"}}}, kind="GeoLite2-Country")
    with pytest.raises(NotAnAsnFile, match=r"no AS numbers.*GeoLite2-Country"):
        AsnFile(str(path), clock)


def test_a_new_file_is_used(path, clock):
    """A file renamed over the old one is in use at the next look, ten seconds later at most."""
    write(path, MAXMIND)
    source = AsnFile(str(path), clock)
    write(path, {"192.0.2.0/24": {"autonomous_system_number": 64510, "autonomous_system_organization": "NEW"}})
    assert Asn(64500, "EXAMPLE") == found(source, "192.0.2.1")
    clock.advance(10)
    assert Asn(64510, "NEW") == found(source, "192.0.2.1")


def test_a_bad_file_is_not_used(path, clock, errors):
    """A broken or missing new file is logged once and counted; the last good one stays, until there is a better."""
    write(path, MAXMIND)
    source = AsnFile(str(path), clock)
    broken = path.with_suffix(".broken")
    broken.write_bytes(b"x" * 1000)
    os.replace(broken, path)
    for _ in range(3):
        clock.advance(10)
        assert Asn(64500, "EXAMPLE") == found(source, "192.0.2.1")
    assert (1, 1) == (len(errors), source.errors)
    path.unlink()
    for _ in range(3):
        clock.advance(10)
        assert Asn(64500, "EXAMPLE") == found(source, "192.0.2.1")
    assert (2, 2) == (len(errors), source.errors)
    write(path, IPINFO)
    clock.advance(10)
    assert Asn(64500, "Example") == found(source, "192.0.2.1")


def test_a_damaged_record(path, clock, errors):
    """A record that cannot be read is None, counted, and logged once however often it is asked for."""
    write(path, MAXMIND)
    whole = path.read_bytes()
    source = AsnFile(str(path), clock)
    # The text of one name becomes no UTF-8; the rest of the file stays as it is.
    damaged = path.with_suffix(".damaged")
    damaged.write_bytes(whole.replace(b"INNER", b"\xff\xfe\xff\xfe\xff"))
    os.replace(damaged, path)
    clock.advance(10)
    for _ in range(3):
        answer = found(source, "192.0.2.200")
        assert answer is None
    assert Asn(64500, "EXAMPLE") == found(source, "192.0.2.1")
    assert 3 == source.errors
    assert 1 == len(errors)


def test_built_at(path, clock):
    """When the file was made is known, in Unix seconds."""
    write(path, MAXMIND)
    assert AsnFile(str(path), clock).built_at == pytest.approx(path.stat().st_mtime, abs=60)
