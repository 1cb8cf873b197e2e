"""The document of `mtr --json` (mtr 0.95, ui/report.c): same keys, same types, same order.

    {"report": {"mtr": {"src", "dst", "tos": 0, "tests": 3, "psize": "64", "bitpattern": "0x00"},
                "hubs": [{"count": 1, "host", "Loss%", "Snt", "Last", "Avg", "Best", "Wrst", "StDev"}, ...]}}

Times are milliseconds with three decimals. As in mtr, a hub names the responder that answered last, an unknown one is
"???", and whatever has no value is 0. Where AS numbers were asked for, a hub has an "ASN" behind its host.

Three things differ: `src` is the address probes leave from ("???" if that is not shown) where mtr has the name of the
host it runs on; `tests` counts the probes per hop of all flows; mtr rounds to five digits, which for times
above 99 ms is coarser than here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...model import Hop, Probe, Trace

_UNKNOWN = "???"


def render(trace: Trace) -> bytes:
    """The whole trace as it stands."""
    request = trace.request
    mtr = {
        "src": trace.source_address or _UNKNOWN,
        "dst": request.target,
        "tos": request.tos,
        "tests": request.probes * request.flows,
        "psize": str(request.size),
        "bitpattern": "0x00",
    }
    hubs = [_hub(hop, with_asn=request.lookup_asn) for hop in trace.hops]
    return msgspec.json.format(msgspec.json.encode({"report": {"mtr": mtr, "hubs": hubs}}), indent=4) + b"\n"


def _hub(hop: Hop, *, with_asn: bool) -> dict[str, Any]:
    answers = [probe for probe in hop.probes if probe.address is not None]
    last = max(answers, key=_answered_at, default=None)
    responder = next((each for each in hop.responders if last is not None and each.address == last.address), None)
    hub: dict[str, Any] = {
        "count": hop.ttl,
        "host": _UNKNOWN if responder is None else responder.hostname or responder.address,
    }
    if with_asn:
        asn = responder and responder.asn
        hub["ASN"] = f"AS{asn.number if asn else _UNKNOWN}"
    stats = hop.stats
    return hub | {
        "Loss%": round(stats.loss_pct or 0.0, 3),
        "Snt": stats.sent,
        "Last": _ms(None if last is None else last.rtt_us),
        "Avg": _ms(stats.avg_us),
        "Best": _ms(stats.min_us),
        "Wrst": _ms(stats.max_us),
        "StDev": _ms(stats.stddev_us),
    }


def _answered_at(probe: Probe) -> float:
    return probe.sent_at + (probe.rtt_us or 0) / 1e6


def _ms(us: float | None) -> float:
    return round((us or 0.0) / 1000, 3)
