"""Every setting of the service: one frozen value, and the one table it is read and documented from.

A field of `Settings` carries its unit and meaning, its default as an operator would write it, and the parser that
holds its bounds. From that table come the environment variable (`TRACEROUTED_<NAME>`), the option of
`tracerouted serve` (`--<name>`), both with the same syntax, and the words of `--help`. An option wins over
its variable; a variable that is empty counts as not set.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from attrs import Attribute, Factory, field, fields, frozen

from .naming.policy import parse_networks
from .naming.special import IPNetwork

PREFIX = "TRACEROUTED_"

# Kubernetes and Docker links put these into the environment for a service that is itself called "tracerouted".
_FOREIGN = re.compile(r"(SERVICE_(HOST|PORT.*)|PORT(_.*)?|NAME|ENV_.*)")

LOG_LEVELS = ("debug", "info", "warn", "error")


class SettingError(ValueError):
    """A setting that cannot be used; `str()` is one line naming where it was set, the value, and what to write."""


class Address(NamedTuple):
    """A numeric IP address (IPv6 without brackets) and a port. It is the (host, port) pair Twisted takes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"[\s,]+", text) if part]


def _address(text: str, default_port: int | None) -> Address:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text)
    bare = re.fullmatch(r"([^:\[\]]+)(?::([0-9]{1,5}))?", text)
    match = bracketed or bare
    if match is None:
        if default_port is None:
            raise ValueError
        return Address(str(ipaddress.IPv6Address(text)), default_port)
    host = "127.0.0.1" if match[1] == "localhost" else match[1]
    number = ipaddress.IPv6Address(host) if bracketed else ipaddress.IPv4Address(host)
    port = default_port if match[2] is None else int(match[2])
    if port is None or port > 65535:
        raise ValueError
    return Address(str(number), port)


def _addresses(
    example: str, default_port: int | None = None, required: bool = False
) -> Callable[[str], tuple[Address, ...]]:
    def parse(text: str) -> tuple[Address, ...]:
        try:
            found = tuple(_address(part, default_port) for part in _split(text))
        except ValueError:
            found = ()
        if len(set(found)) < len(found):
            raise ValueError("write each address once")
        if not found and (required or text):
            raise ValueError(f"write addresses like {example}")
        return found

    return parse


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"write a whole number from {low} to {high}")

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) and low <= float(text) <= high:
            return float(text)
        raise ValueError(f"write a number of seconds from {low:g} to {high:g}")

    return parse


_UNITS = {"": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def _bytes(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12}) ?(|[KMG]iB)", text, re.IGNORECASE)
        if match and low <= (size := int(match[1]) * _UNITS[match[2].lower()]) <= high:
            return size
        raise ValueError(f"write a number of bytes from {low} to {high}, or one like 512KiB, 16MiB, 1GiB")

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("write true or false")


def _level(text: str) -> str:
    if text.lower() in LOG_LEVELS:
        return text.lower()
    raise ValueError(f"write one of {', '.join(LOG_LEVELS)}")


def _path(text: str) -> str | None:
    if text and (not text.startswith("/") or "\0" in text):
        raise ValueError("write an absolute path")
    return text or None


def _perhaps(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """A setting that is off when it is empty."""
    return lambda text: parse(text) if text else None


# What a browser sends as Origin (RFC 6454 section 6.2): no path, no default port, lower case.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_USUAL_PORT = re.compile(r"^(http://.*):80$|^(https://.*):443$")


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(_USUAL_PORT.sub(r"\1\2", part.lower()) for part in _split(text))
    if "*" in found and found != ("*",):
        raise ValueError("write * alone; it stands for every origin")
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError("write origins like https://example.net or http://localhost:3000, without a path, or *")
    return found


def _setting(default: str, parse: Callable[[str], Any], metavar: str, help: str, *, repeatable: bool = False) -> Any:
    """A field: its default as written by an operator, its parser (raises ValueError with what to write), its help."""
    return field(
        default=Factory(lambda: parse(default)),
        metadata={"default": default, "parse": parse, "metavar": metavar, "help": help, "repeatable": repeatable},
    )


@frozen(kw_only=True)
class Settings:
    """All settings. `_s` ends those in seconds, `_bytes` those in bytes; the help of each field says the rest."""

    listen: tuple[Address, ...] = _setting(
        "127.0.0.1:8080",
        _addresses("127.0.0.1:8080 or [::1]:8080", required=True),
        "ADDRESS:PORT",
        "Addresses to serve HTTP on, separated by commas; IPv6 in brackets.",
        repeatable=True,
    )
    mtr_packet: str | None = _setting(
        "", _path, "PATH", "The mtr-packet program, an absolute path; empty means looked up on PATH and in sbin."
    )
    allow_targets: tuple[IPNetwork, ...] = _setting(
        "",
        parse_networks,
        "NETWORK",
        "Networks (CIDR) that may be traced although they are not public.",
        repeatable=True,
    )
    deny_targets: tuple[IPNetwork, ...] = _setting(
        "",
        parse_networks,
        "NETWORK",
        "Networks (CIDR) that may never be traced; wins over all.",
        repeatable=True,
    )
    max_running: int = _setting("500", _count(1, 100_000), "TRACES", "Traces running at once.")
    max_queued: int = _setting("2000", _count(0, 1_000_000), "TRACES", "Traces waiting to run; more are refused.")
    max_kept: int = _setting("10000", _count(1, 10_000_000), "TRACES", "Finished traces kept; the oldest go first.")
    max_kept_bytes: int = _setting(
        "64MiB", _bytes(0, 1024**4), "BYTES", "Memory for finished traces; the oldest go first."
    )
    retention_s: float = _setting(
        "3600", _seconds(1, 31_536_000), "SECONDS", "How long a finished trace can be read."
    )
    probes_per_second: int = _setting("2000", _count(1, 1_000_000), "PROBES", "Probes sent per second, in all.")
    target_probes_per_second: int = _setting(
        "200", _count(1, 1_000_000), "PROBES", "Probes sent per second towards one target address."
    )
    traces_per_prefix: int = _setting(
        "8",
        _count(1, 1_000_000),
        "TRACES",
        "Traces running at once towards one /24 (IPv4) or /48 (IPv6); further ones wait.",
    )
    dns_servers: tuple[Address, ...] = _setting(
        "",
        _addresses("192.0.2.53 or [2001:db8::53]:5353", default_port=53),
        "ADDRESS[:PORT]",
        "DNS servers to ask, for the names of targets as for those of responders; empty means the system's resolver.",
        repeatable=True,
    )
    dns_lookups: int = _setting("32", _count(1, 1000), "LOOKUPS", "DNS look-ups under way at once.")
    dns_deadline_s: float = _setting(
        "5", _seconds(0.1, 60), "SECONDS", "Time for a DNS look-up, waiting for its turn included."
    )
    asn_mmdb: str | None = _setting(
        "",
        _path,
        "PATH",
        "A MaxMind DB file with AS numbers (GeoLite2-ASN or alike), an absolute path; a new one, renamed over it, is "
        "used within seconds.",
    )
    asn_dns: bool = _setting(
        "false",
        _boolean,
        "true|false",
        "Whether Team Cymru's DNS zones are asked which AS announces an address that --asn-mmdb does not know.",
    )
    metrics: bool = _setting("true", _boolean, "true|false", "Whether metrics for Prometheus are served at /metrics.")
    log_level: str = _setting(
        "info", _level, "LEVEL", f"The least important log lines written: {', '.join(LOG_LEVELS)}."
    )
    shutdown_s: float = _setting(
        "20", _seconds(0, 3600), "SECONDS", "How long running traces may take to end after SIGTERM or SIGINT."
    )
    show_source_address: bool = _setting(
        "true", _boolean, "true|false", "Whether traces show the address they were sent from."
    )
    api_keys_file: str | None = _setting(
        "", _path, "PATH", "File of the API keys that are let in, an absolute path; empty means nobody needs one."
    )
    trusted_proxies: tuple[IPNetwork, ...] = _setting(
        "",
        parse_networks,
        "NETWORK",
        "Networks (CIDR) of proxies whose X-Forwarded-For says who the client is.",
        repeatable=True,
    )
    create_per_minute: int | None = _setting(
        "",
        _perhaps(_count(1, 1_000_000)),
        "TRACES",
        "Traces one client may create per minute; empty means any number.",
    )
    cors_origins: tuple[str, ...] = _setting(
        "",
        _origins,
        "ORIGIN",
        "Origins whose pages may use the service from a browser, * for all; empty means none but its own.",
        repeatable=True,
    )
    max_body_bytes: int = _setting("16KiB", _bytes(256, 16 * 1024**2), "BYTES", "Largest request body.")
    request_deadline_s: float = _setting(
        "10", _seconds(0.1, 3600), "SECONDS", "Time for a client to send a whole request."
    )
    keep_alive_s: float = _setting(
        "60", _seconds(0.1, 3600), "SECONDS", "How long a connection may stay open between two requests."
    )
    max_connections: int = _setting(
        "1000", _count(1, 1_000_000), "CONNECTIONS", "Client connections open at once; more are closed at once."
    )
    max_requests_per_connection: int = _setting(
        "1000", _count(1, 1_000_000), "REQUESTS", "Requests answered on one connection before it is closed."
    )
    max_streams: int = _setting("1000", _count(0, 1_000_000), "STREAMS", "Event streams open at once.")
    stream_behind_bytes: int = _setting(
        "1MiB", _bytes(64 * 1024, 1024**3), "BYTES", "Unread events at which a slow reader of a stream is dropped."
    )
    stream_stalled_s: float = _setting(
        "30", _seconds(1, 3600), "SECONDS", "Time without reading after which a reader of a stream is dropped."
    )
    heartbeat_s: float = _setting(
        "15", _seconds(0.1, 3600), "SECONDS", "Time between two comments on an event stream, which keep it open."
    )
    render_cache_bytes: int = _setting("16MiB", _bytes(0, 1024**3), "BYTES", "Memory for documents already rendered.")
    max_remembered: int = _setting(
        "16384",
        _count(1, 10_000_000),
        "ENTRIES",
        "Entries in each table of things remembered: spent quotas, Idempotency-Keys, names and AS numbers of "
        "addresses, path lengths; the least useful go first.",
    )

    @classmethod
    def load(cls, options: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
        """Read settings from command line options (by field name) and the environment, options first.

        Raises `SettingError`.
        """
        values: dict[str, Any] = {}
        for attribute in fields(cls):
            where, text = option(attribute), options.get(attribute.name)
            if text is None:
                where, text = variable(attribute), environ.get(variable(attribute)) or None
            if text is None:
                continue
            try:
                values[attribute.name] = attribute.metadata["parse"](text.strip())
            except ValueError as wrong:
                raise SettingError(f"{where}={text!r}: {wrong}") from None
        return cls(**values)


def variable(attribute: Attribute[Any]) -> str:
    """The environment variable of a field of `Settings`."""
    return PREFIX + attribute.name.upper()


def option(attribute: Attribute[Any]) -> str:
    """The command line option of a field of `Settings`."""
    return "--" + attribute.name.replace("_", "-")


def unknown_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Each `TRACEROUTED_*` variable that is no setting, with the nearest one that is (None: nothing is near)."""
    known = [variable(attribute) for attribute in fields(Settings)]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not _FOREIGN.fullmatch(name.removeprefix(PREFIX)):
            yield name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)


def listed(attribute: Attribute[Any]) -> str:
    """What `--help` says of a field: its meaning, environment variable and default."""
    return (
        f"{attribute.metadata['help']}  [{variable(attribute)}; default: {attribute.metadata['default'] or 'none'}]"
    )
