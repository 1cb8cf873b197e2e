"""API keys: the file that names who may use the service, and the key a request brings.

The file has one `NAME SHA256` line per key, the digest being that of the key in 64 hexadecimal digits; `#` begins a
comment. It holds no key, so reading it opens nothing. A name may have several lines, which lets a key be replaced
without a gap. The key itself comes as `Authorization: Bearer KEY` (RFC 6750 section 2.1) and in no other way.

Nothing here writes a key, or a line that might hold one, into a message or a log.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from .problems import UNAUTHORIZED, ProblemError

KEY_BYTES = 32
#: How often, at most, the file is looked at for changes.
CHECK_S = 1.0
#: About 3000 keys. All are compared for every request, and the file is read while requests wait.
MOST_FILE_BYTES = 262_144

_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_LINE = re.compile(rb"(%b)[ \t]+([0-9A-Fa-f]{64})" % _NAME.encode())
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]{1,512}=*)", re.IGNORECASE)


class KeysFileError(ValueError):
    """A keys file that cannot be used; `str()` says why, and holds nothing of what is in the file."""


class Key(NamedTuple):
    """Whose a key is, and the SHA-256 digest of it."""

    name: str
    digest: bytes


def new_key(name: str) -> tuple[str, str]:
    """A fresh key and its line for the file. Raises ValueError for what is no name."""
    if not re.fullmatch(_NAME, name):
        raise ValueError("a name has up to 64 letters, digits and . _ @ - and begins with a letter or digit")
    key = secrets.token_urlsafe(KEY_BYTES)
    return key, f"{name} {sha256(key.encode('ascii')).hexdigest()}"


def parse_keys(content: bytes) -> tuple[Key, ...]:
    """The keys of a file. Raises `KeysFileError` naming the first wrong line."""
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        words = line.split(b"#", 1)[0].strip()
        if not words:
            continue
        match = _LINE.fullmatch(words)
        if match is None:
            raise KeysFileError(
                f"line {number} is not a name and a SHA-256 digest in hexadecimal; `tracerouted key new` writes one"
            )
        key = Key(match[1].decode("ascii"), bytes.fromhex(match[2].decode("ascii")))
        if keys.setdefault(key.digest, key).name != key.name:
            raise KeysFileError(f"line {number} has the digest of another name's key")
    return tuple(keys.values())


def bearer(authorization: bytes | None) -> bytes | None:
    """The key in an Authorization field; None where there is none that could be one."""
    match = _BEARER.fullmatch(authorization.strip()) if authorization is not None else None
    return None if match is None else match[1]


_Signature = tuple[int, int, int]


@define(eq=False)
class KeyRing:
    """The keys of a file, read again when it changes. Raises `KeysFileError` when made from one that is not usable.

    A file that later cannot be read, or is broken, changes nothing: the keys last read stay, and the log says so.
    """

    _path: Path
    _clock: IReactorTime
    _keys: tuple[Key, ...] = field(init=False)
    _seen: _Signature | None = field(init=False)
    _checked: float = field(init=False)
    _log: Logger = field(init=False, factory=Logger)

    def __attrs_post_init__(self) -> None:
        self._checked = self._clock.seconds()
        self._seen = self._signature()
        self._keys = self._read()

    def owner(self, authorization: bytes | None) -> str:
        """The name whose key an Authorization field holds. Raises `unauthorized`."""
        self._refresh()
        key = bearer(authorization)
        if key is not None:
            digest = sha256(key).digest()
            # All are compared, so that the time taken says nothing about which one it was, or nearly was.
            names = [known.name for known in self._keys if compare_digest(known.digest, digest)]
            if names:
                return names[0]
        if authorization is None:
            detail, challenge = "this service wants an API key, as Authorization: Bearer KEY", b""
        else:
            detail, challenge = "Authorization holds no API key of this service", b', error="invalid_token"'
        raise ProblemError(
            UNAUTHORIZED, detail, headers={b"WWW-Authenticate": b'Bearer realm="tracerouted"' + challenge}
        )

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if now - self._checked < CHECK_S:
            return
        self._checked = now
        try:
            # Before reading: what is written meanwhile is found at the next look.
            signature = self._signature()
        except KeysFileError as wrong:
            if self._seen is not None:
                self._seen = None
                self._keep(wrong)
            return
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._keys = self._read()
        except KeysFileError as wrong:
            self._keep(wrong)
        else:
            self._log.info("read {count} API keys from {path}", count=len(self._keys), path=str(self._path))

    def _keep(self, wrong: KeysFileError) -> None:
        self._log.error(
            "the API keys in {path} cannot be used: {reason}; the {count} read before stay valid",
            path=str(self._path),
            reason=str(wrong),
            count=len(self._keys),
        )

    def _signature(self) -> _Signature:
        try:
            status = self._path.stat()
        except OSError as wrong:
            raise KeysFileError(_reason(wrong)) from None
        if not S_ISREG(status.st_mode):  # reading a pipe or a device might not end
            raise KeysFileError("it is not a regular file")
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[Key, ...]:
        try:
            with self._path.open("rb") as file:
                content = file.read(MOST_FILE_BYTES + 1)
        except OSError as wrong:
            raise KeysFileError(_reason(wrong)) from None
        if len(content) > MOST_FILE_BYTES:
            raise KeysFileError(f"it has more than {MOST_FILE_BYTES} bytes")
        keys = parse_keys(content)
        if not keys:
            self._log.warn("{path} holds no API key: every request for one is refused", path=str(self._path))
        return keys


def _reason(wrong: OSError) -> str:
    return wrong.strerror or type(wrong).__name__
