"""AS numbers from a local MaxMind DB file: the format of GeoLite2-ASN, DB-IP, IPinfo and others.

A look-up is a few reads of mapped memory, so nothing is cached.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from typing import Any

import maxminddb
from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..model import Asn
from .asn import as_name, as_number

# (number, name) as the databases call them: MaxMind and DB-IP; IPinfo; those made from routing tables.
_KEYS = (
    ("autonomous_system_number", "autonomous_system_organization"),
    ("asn", "as_name"),
    ("asn", "name"),
    ("as_number", "as_name"),
    ("as_number", "as_description"),
)
#: Maps within a record that may hold them instead (GeoIP2 Enterprise, IPinfo Core).
_INNER = ("traits", "as", "asn")

_PROBED_RECORDS = 500


class NotAnAsnFile(ValueError):
    """A file that cannot be used; `str()` says why."""


def asn_in(record: object) -> Asn | None:
    """The system a database record names, in any of the layouts known."""
    if not isinstance(record, Mapping):
        return None
    found = None
    for number_key, name_key in _KEYS:
        number = as_number(record.get(number_key))
        if number is not None:
            found = Asn(number, as_name(record.get(name_key)))
            if found.name is not None:
                return found
    if found is None:
        found = next(filter(None, (asn_in(record.get(inner)) for inner in _INNER)), None)
    return found


def open_asn_file(path: str) -> Any:
    """A reader of a database with AS numbers. Raises `NotAnAsnFile`."""
    try:
        reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)  # mapped, by the C extension where there is one
    except (OSError, maxminddb.InvalidDatabaseError, ValueError) as error:
        raise NotAnAsnFile(getattr(error, "strerror", None) or f"{error}") from None
    try:
        if any(asn_in(record) for _, record in islice(reader, _PROBED_RECORDS)):
            return reader
        raise NotAnAsnFile(f"it has no AS numbers; it is a {reader.metadata().database_type!r} database")
    except NotAnAsnFile:
        reader.close()
        raise
    except Exception as error:  # whatever a reader makes of bytes that anybody wrote
        reader.close()
        raise NotAnAsnFile(f"it cannot be read: {error}") from None


@define(eq=False)
class AsnFile:
    """AS numbers from an MMDB file, which is opened again when it has changed. Raises `NotAnAsnFile` at first.

    Replace the file by renaming another one over it: it is mapped, and one that shrinks while it is read ends the
    process. A file that is gone or broken later is logged once, and the last good one stays in use. Whether it
    changed is looked at with a look-up, at most every `every_s`. `errors` counts files and records not readable.
    """

    _path: str
    _clock: IReactorTime
    _every_s: float = 10.0
    errors: int = field(default=0, init=False)
    _reader: Any = field(init=False)
    _only_ipv4: bool = field(init=False)
    _stamp: tuple[int, ...] | None = field(init=False)
    _looked_at: float = field(init=False)
    _record_failed: bool = field(default=False, init=False)
    _log: Logger = field(factory=Logger, init=False)

    def __attrs_post_init__(self) -> None:
        self._stamp = self._stamp_now()
        self._use(open_asn_file(self._path))
        self._looked_at = self._clock.seconds()

    @property
    def built_at(self) -> int:
        """When the database in use was made, in Unix seconds."""
        return int(self._reader.metadata().build_epoch)

    def asn(self, address: str) -> Deferred[Asn | None]:
        """The system of an IPv4 or IPv6 address; None when the file does not know. It has fired already."""
        now = self._clock.seconds()
        if now - self._looked_at >= self._every_s:
            self._looked_at = now
            self._reopen_if_changed()
        if ":" in address and self._only_ipv4:
            return succeed(None)  # asking would raise
        try:
            return succeed(asn_in(self._reader.get(address)))
        except Exception as error:  # whatever a reader makes of bytes that anybody wrote
            self.errors += 1
            if not self._record_failed:
                self._record_failed = True
                self._log.error("{path}: a record cannot be read: {error}", path=self._path, error=str(error))
            return succeed(None)

    def _use(self, reader: Any) -> None:
        self._reader = reader
        self._only_ipv4 = reader.metadata().ip_version == 4
        self._record_failed = False

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _reopen_if_changed(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            reader = open_asn_file(self._path)
        except NotAnAsnFile as error:
            self.errors += 1
            self._log.error(
                "{path}: {error}; the AS numbers read from it before stay in use", path=self._path, error=str(error)
            )
            return
        self._reader.close()
        self._use(reader)
        self._log.info("{path}: AS numbers of a new file are in use", path=self._path, built_at=self.built_at)
