"""What a client asks for in its headers: pure parsers, bytes in, decisions out.

Accept and its q-values (RFC 9110 section 12.5.1), Prefer (RFC 7240), If-None-Match (RFC 9110 section 13.1.2),
Last-Event-ID (WHATWG HTML, server-sent events), and the media type of a body.
"""

from __future__ import annotations

import re
from functools import lru_cache

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

#: The longest `Prefer: wait` that is honoured; a longer one is cut to this.
MOST_WAIT_S = 60

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
# A comma inside a quoted string separates nothing; one that is not closed goes on to the end.
_PREFERENCE = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^,"])+', re.DOTALL)
_WAIT = re.compile(r'wait\s*=\s*(?:([0-9]{1,9})|"([0-9]{1,9})")\s*(?:;.*)?', re.IGNORECASE | re.ASCII | re.DOTALL)
_LAST_EVENT_ID = re.compile(rb"[0-9]{1,15}")


@lru_cache(maxsize=256)
def acceptable(accept: bytes, offers: tuple[str, ...]) -> str | None:
    """The media type of `offers` the client likes best, earlier offers first among equals; None when it takes none.

    An empty Accept takes anything.
    """
    if not accept.strip():
        return offers[0]
    return parse_accept_header(accept.decode("latin-1"), MIMEAccept).best_match(offers)


def is_json(content_type: bytes | None) -> bool:
    """Whether a body's media type is application/json; its parameters don't matter (RFC 8259 section 11)."""
    return content_type is not None and content_type.split(b";", 1)[0].strip().lower() == b"application/json"


def wait_preferred(prefer: bytes | None) -> int | None:
    """Seconds to wait before answering, at most `MOST_WAIT_S`.

    None when not asked for, or not in a form RFC 7240 knows: a preference that cannot be honoured is ignored
    (section 2). The first of several counts.
    """
    if prefer is None:
        return None
    for preference in _PREFERENCE.findall(prefer.decode("latin-1")):
        preference = preference.strip()
        if re.match(r"wait\b", preference, re.IGNORECASE):
            match = _WAIT.fullmatch(preference)
            return min(int(match[1] or match[2]), MOST_WAIT_S) if match else None
    return None


def matches(if_none_match: bytes, tag: bytes) -> bool:
    """Whether an If-None-Match header names the strong entity tag `tag`, by weak comparison."""
    if_none_match = if_none_match.strip()
    if if_none_match in (tag, b"*"):
        return True
    return tag in _ENTITY_TAG.findall(if_none_match)


def event_id(last_event_id: bytes) -> int | None:
    """The revision a Last-Event-ID header names; None when it is not one of ours."""
    return int(last_event_id) if _LAST_EVENT_ID.fullmatch(last_event_id) else None
