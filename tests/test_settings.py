"""Settings: texts to values, and the one line an operator gets for a wrong one."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from attrs import fields

import tracerouted
from tracerouted.settings import Address, SettingError, Settings, listed, option, unknown_variables, variable

FIELDS = {attribute.name: attribute for attribute in fields(Settings)}


def from_environment(**variables: str) -> Settings:
    return Settings.load({}, {f"TRACEROUTED_{name}": text for name, text in variables.items()})


def test_defaults_are_the_documented_ones() -> None:
    """Nothing set: a loopback address and limits that suit a small machine."""
    settings = Settings()

    assert (Address("127.0.0.1", 8080),) == settings.listen
    assert () == settings.allow_targets == settings.deny_targets == settings.dns_servers
    assert (settings.max_running, settings.max_queued, settings.max_kept) == (500, 2000, 10_000)
    assert (
        settings.probes_per_second,
        settings.target_probes_per_second,
        settings.traces_per_prefix,
    ) == (2000, 200, 8)
    assert (
        settings.max_kept_bytes,
        settings.max_body_bytes,
        settings.stream_behind_bytes,
        settings.render_cache_bytes,
    ) == (64 * 1024**2, 16_384, 1024**2, 16 * 1024**2)
    assert (
        settings.retention_s,
        settings.shutdown_s,
        settings.request_deadline_s,
        settings.stream_stalled_s,
        settings.keep_alive_s,
        settings.heartbeat_s,
    ) == (3600, 20, 10, 30, 60, 15)
    assert (None, None, (), ()) == (
        settings.api_keys_file,
        settings.create_per_minute,
        settings.trusted_proxies,
        settings.cors_origins,
    )
    assert settings.show_source_address is True
    assert settings.log_level == "info"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_how_to_set_it(name: str) -> None:
    """A default as shown is a value that can be written; the help names the variable and ends its sentence."""
    attribute = FIELDS[name]

    written = attribute.metadata["default"]
    loaded = Settings.load({}, {variable(attribute): written})

    assert Settings() == loaded
    assert f"TRACEROUTED_{name.upper()}" in listed(attribute)
    assert attribute.metadata["help"].endswith(".")
    assert attribute.metadata["metavar"]
    assert f"--{name.replace('_', '-')}" == option(attribute)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8080,[::]:8080", (Address("0.0.0.0", 8080), Address("::", 8080))),
        (" 127.0.0.1:1 \n [0::1]:65535, ", (Address("127.0.0.1", 1), Address("::1", 65535))),
        ("localhost:0", (Address("127.0.0.1", 0),)),
    ],
)
def test_listen(text: str, expected: tuple[Address, ...]) -> None:
    """Addresses come comma- or space-separated, IPv6 in brackets, and print as they are written."""
    listen = from_environment(LISTEN=text).listen

    assert expected == listen
    assert expected == from_environment(LISTEN=",".join(map(str, listen))).listen


def test_dns_servers_default_to_port_53() -> None:
    """The port of a DNS server may be left out, for IPv6 together with the brackets."""
    servers = from_environment(DNS_SERVERS="192.0.2.1 192.0.2.2:5353,2001:db8::1,[2001:db8::2],[2001:db8::3]:54")

    assert (
        Address("192.0.2.1", 53),
        Address("192.0.2.2", 5353),
        Address("2001:db8::1", 53),
        Address("2001:db8::2", 53),
        Address("2001:db8::3", 54),
    ) == servers.dns_servers


def test_targets_are_networks() -> None:
    """Target settings hold networks of both families."""
    settings = from_environment(ALLOW_TARGETS="10.0.0.0/8,fd00::/8", DENY_TARGETS="192.0.2.1")

    assert (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")) == settings.allow_targets
    assert (ipaddress.ip_network("192.0.2.1/32"),) == settings.deny_targets


@pytest.mark.parametrize(
    ("text", "expected"), [("16384", 16384), ("16KiB", 16384), ("1 mib", 1024**2), ("16MiB", 16 * 1024**2)]
)
def test_bytes(text: str, expected: int) -> None:
    """Sizes are bytes, or have a binary unit."""
    assert expected == from_environment(MAX_BODY_BYTES=text).max_body_bytes


@pytest.mark.parametrize(("text", "expected"), [("yes", True), ("TRUE", True), ("0", False), ("off", False)])
def test_boolean(text: str, expected: bool) -> None:
    """A switch takes the usual words."""
    assert expected is from_environment(SHOW_SOURCE_ADDRESS=text).show_source_address


def test_option_wins_over_variable() -> None:
    """What is written on the command line counts, even when it empties a list; an empty variable does not count."""
    environ = {
        "TRACEROUTED_MAX_RUNNING": "7",
        "TRACEROUTED_DENY_TARGETS": "192.0.2.0/24",
        "TRACEROUTED_MAX_KEPT": "",
    }

    settings = Settings.load({"max_running": "9", "deny_targets": ""}, environ)

    assert settings.max_running == 9
    assert settings.deny_targets == ()
    assert settings.max_kept == 10_000


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MAX_RUNNING", "0", "write a whole number from 1 to 100000"),
        ("MAX_RUNNING", "100001", "write a whole number from 1 to 100000"),
        ("MAX_RUNNING", "-1", "write a whole number"),
        ("MAX_RUNNING", "1_0", "write a whole number"),
        ("MAX_RUNNING", "\uff15", "write a whole number"),
        ("MAX_RUNNING", "9" * 5000, "write a whole number"),
        ("RETENTION_S", "nan", "write a number of seconds from 1 to"),
        ("RETENTION_S", "0.5", "write a number of seconds from 1 to"),
        ("SHUTDOWN_S", "1h", "write a number of seconds from 0 to 3600"),
        ("MAX_BODY_BYTES", "1KB", "write a number of bytes from 256 to 16777216, or one like 512KiB"),
        ("MAX_BODY_BYTES", "17MiB", "write a number of bytes from 256 to 16777216"),
        ("LISTEN", "8080", "write addresses like 127.0.0.1:8080 or [::1]:8080"),
        ("LISTEN", "::1:8080", "write addresses like"),
        ("LISTEN", "example.net:80", "write addresses like"),
        ("LISTEN", "127.0.0.1:65536", "write addresses like"),
        ("LISTEN", "[127.0.0.1]:80", "write addresses like"),
        ("LISTEN", ",", "write addresses like"),
        ("LISTEN", "[::1]:80,[0::1]:80", "write each address once"),
        ("DNS_SERVERS", "one.one.one.one", "write addresses like 192.0.2.53"),
        ("ALLOW_TARGETS", "10.0.0.0/33", "is not a network"),
        ("SHOW_SOURCE_ADDRESS", "maybe", "write true or false"),
        ("LOG_LEVEL", "verbose", "write one of debug, info, warn, error"),
        ("API_KEYS_FILE", "keys", "write an absolute path"),
        ("CREATE_PER_MINUTE", "0", "write a whole number from 1 to 1000000"),
        ("TRUSTED_PROXIES", "proxy.example.net", "is not a network"),
        ("CORS_ORIGINS", "*,https://example.net", "write * alone"),
        ("CORS_ORIGINS", "example.net", "write origins like https://example.net"),
        ("CORS_ORIGINS", "https://example.net/", "write origins like https://example.net"),
        ("CORS_ORIGINS", "https://*.example.net", "write origins like https://example.net"),
        ("CORS_ORIGINS", "null", "write origins like https://example.net"),
        ("KEEP_ALIVE_S", "0", "write a number of seconds from 0.1 to 3600"),
        ("HEARTBEAT_S", "0", "write a number of seconds from 0.1 to 3600"),
        ("MTR_PACKET", "bin/mtr-packet", "write an absolute path"),
    ],
)
def test_wrong_value(name: str, text: str, words: str) -> None:
    """One line: where it was set, the value, what to write instead."""
    with pytest.raises(SettingError) as wrong:
        from_environment(**{name: text})

    assert str(wrong.value).startswith(f"TRACEROUTED_{name}={text!r}: ")
    assert words in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_wrong_option_is_named_as_such() -> None:
    """A value from the command line is blamed on the option, and control characters stay on the line."""
    with pytest.raises(SettingError, match=r"^--max-kept='1\\n2': write a whole number from 1 to 10000000$"):
        Settings.load({"max_kept": "1\n2"}, {"TRACEROUTED_MAX_KEPT": "1"})


def test_mtr_packet() -> None:
    """A path is taken as it is; none means that the program is looked up when it is started."""
    assert Settings().mtr_packet is None
    assert from_environment(MTR_PACKET="/opt/mtr packet").mtr_packet == "/opt/mtr packet"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", ("*",)),
        ("https://lg.example.net, http://localhost:3000", ("https://lg.example.net", "http://localhost:3000")),
        ("HTTPS://LG.Example.net:443", ("https://lg.example.net",)),
        ("http://[2001:db8::1]:80 https://a:80", ("http://[2001:db8::1]", "https://a:80")),
    ],
)
def test_origins(text: str, expected: tuple[str, ...]) -> None:
    """Origins are kept as a browser sends them: lower case, without the port that goes without saying."""
    assert expected == from_environment(CORS_ORIGINS=text).cors_origins


def test_a_quota_is_a_number_or_off() -> None:
    """Creations per minute are counted only where a number says how many."""
    assert from_environment(CREATE_PER_MINUTE="60").create_per_minute == 60
    assert Settings.load({"create_per_minute": ""}, {"TRACEROUTED_CREATE_PER_MINUTE": "60"}).create_per_minute is None


def test_every_setting_is_used() -> None:
    """No setting is without effect: each is read somewhere in the package."""
    package = Path(tracerouted.__file__).parent
    source = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "settings.py")

    assert [name for name in FIELDS if not re.search(rf"settings\.{name}\b|\)\.{name}\b", source)] == []


def test_unknown_variables_are_found() -> None:
    """A misspelt variable is named with its nearest setting; what Kubernetes injects is not ours to judge."""
    environ = {
        "TRACEROUTED_MAX_RUNING": "1",
        "TRACEROUTED_COLOUR": "1",
        "TRACEROUTED_MAX_RUNNING": "1",
        "TRACEROUTED_PORT": "tcp://10.0.0.1:8080",
        "TRACEROUTED_PORT_8080_TCP_ADDR": "10.0.0.1",
        "TRACEROUTED_SERVICE_HOST": "10.0.0.1",
        "TRACEROUTED_SERVICE_PORT_HTTP": "8080",
        "HOME": "/",
    }

    assert list(unknown_variables(environ)) == [
        ("TRACEROUTED_COLOUR", None),
        ("TRACEROUTED_MAX_RUNING", "TRACEROUTED_MAX_RUNNING"),
    ]
