"""What is kept of a finished trace: nothing of it is lost, and it is small."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import WALL, stories
from tracerouted.jobs.journal import Journal
from tracerouted.jobs.packing import pack, unpack
from tracerouted.model import Fact, Family, InvalidRequest, Protocol, Trace, TraceRequest
from virtual import TARGET, Drive, line


@settings(max_examples=60, deadline=None)
@given(stories)
def test_packing_loses_nothing(story: tuple[TraceRequest, list[Fact]]) -> None:
    """What is read of a trace after it was packed is what was read of it before, revision and all."""
    request, facts = story
    again, kept = unpack(pack(request, facts))
    assert _read(request, facts) == _read(again, kept)
    assert (request, kept) == unpack(pack(again, kept))


def _read(request: TraceRequest, facts: list[Fact]) -> Trace:
    journal = Journal("id", request, lambda event: b"", lambda delay, call: None)
    for fact in facts:
        journal.append(fact)
    journal.seal(WALL + 3600)
    return journal.trace()


@given(
    st.builds(
        dict,
        target=st.text(min_size=1),
        family=st.none() | st.sampled_from(Family),
        protocol=st.sampled_from(Protocol),
        port=st.none() | st.integers(1, 32_999),
        probes=st.integers(1, 100),
        tos=st.integers(0, 255),
        resolve_names=st.booleans(),
        lookup_asn=st.booleans(),
    )
)
def test_requests_survive(fields: dict) -> None:  # type: ignore[type-arg]
    """Every request comes out as it went in."""
    try:
        request = TraceRequest(**fields)
    except InvalidRequest:
        return
    assert (request, []) == unpack(pack(request, []))


def test_a_kept_trace_is_small() -> None:
    """An 11-hop trace of 3 probes is packed into less than 600 bytes."""
    request = TraceRequest(target=TARGET, probes=3)
    drive = Drive(request, line(11, 0.00213))
    drive.run()
    assert len(pack(request, drive.facts)) < 600
