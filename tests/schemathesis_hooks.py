"""What requests drawn from the contract need that no schema can say; loaded by schemathesis, see test_schemathesis.

Only requests that are valid by the contract are touched, and only in what depends on other fields or on what the
service did before. Each rule has tests of its own next to the service.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import schemathesis
from hypothesis import strategies as st

_KEYS = count()

#: Long enough for the simulated internet; the longest stream and wait of the run.
MOST_DEADLINE_MS = 3000

# One of its labels is not ASCII: the contract has a pattern of its own for the others.
_label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
schemathesis.openapi.format(
    "idn-hostname",
    st.builds(
        lambda labels, name, last: ".".join([*labels, name, last]),
        st.lists(_label, max_size=3),
        st.sampled_from(["bücher", "例え", "ελλάδα"]),
        st.sampled_from(["example", "test", "invalid", "рф"]),
    ),
)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Make a valid request one the service can accept in the state it is in."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    headers = case.headers
    # schemathesis 4.32 also gives these two values of a wrong type in requests it takes for valid.
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = f'"{next(_KEYS)}"'  # no body was sent with it before
    if "Last-Event-ID" in headers:
        headers["Last-Event-ID"] = str(len(headers["Last-Event-ID"]) % 2)  # every trace has come as far
    if isinstance(case.body, dict):
        _consistent(case.body)


def _consistent(body: dict[str, Any]) -> None:
    # mtr-packet 0.95 has no sctp here, and cannot keep udp over IPv6 on one path.
    if body.get("protocol") == "sctp":
        body["protocol"] = "tcp"
    if body.get("protocol") == "udp" and (":" in body["target"] or body.get("family") == "ipv6"):
        body |= {"target": "44.1.1.100", "family": "any"}
    if body.get("first_ttl", 1) > body.get("max_ttl", 30):
        body["max_ttl"] = 64
    if body.get("source_port") is not None:
        body["source_port"] = min(body["source_port"], 33_000 - body.get("flows", 1))
    body["deadline_ms"] = min(body.get("deadline_ms", MOST_DEADLINE_MS), MOST_DEADLINE_MS)
