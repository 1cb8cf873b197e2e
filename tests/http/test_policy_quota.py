"""How many traces a client may create: exact on the injected clock, told in RateLimit fields, not to be got round."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock

from fake_http import Answer, Service, finished_trace, json_body
from tracerouted.http import Policy
from tracerouted.http.quota import Quota
from tracerouted.jobs.engine import Busy, TargetNotAllowed
from tracerouted.naming.policy import parse_networks

BODY = {"target": "example.net"}


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """Three creations a minute, one proxy trusted."""
    trusted = parse_networks("10.0.0.1")
    return make_service(lambda clock: Policy(quota=Quota(3, clock), trusted_proxies=trusted))


def peer(host: str) -> object:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 40000)


def figures(answer: Answer) -> tuple[int, int]:
    """r and t of the RateLimit field."""
    match = re.fullmatch(r'"create";r=([0-9]+);t=([0-9]+)', answer.headers["ratelimit"])
    assert match
    return int(match[1]), int(match[2])


def test_exact(service: Service) -> None:
    """All of a minute's creations at once; then one every twentieth second, not a millisecond sooner."""
    answers = [service.post(BODY) for _ in range(4)]
    assert [202, 202, 202, 429] == [answer.status for answer in answers]
    assert ("quota-exceeded", "20") == (answers[3].type, answers[3].headers["retry-after"])
    assert "TRACEROUTED_CREATE_PER_MINUTE" in answers[3].json["detail"]
    assert "location" not in answers[3].headers
    service.clock.advance(19.999)
    assert "1" == service.post(BODY).headers["retry-after"]
    service.clock.advance(0.001)
    assert [202, 429] == [service.post(BODY).status for _ in range(2)]
    service.clock.advance(60)
    assert [202, 202, 202, 429] == [service.post(BODY).status for _ in range(4)]
    assert 7 == len(service.engine.submitted)


@pytest.mark.parametrize("per_minute", [1, 3, 7, 11, 20, 60, 600])
@pytest.mark.parametrize("start", [0.0, 0.1, 1 / 3, 12345.6789, 1e6 + 0.7])
def test_exact_at_any_time(per_minute: int, start: float) -> None:
    """Rounding neither lengthens a wait nor keeps a bucket from being full, whenever it began."""
    clock = Clock()
    clock.advance(start)
    quota = Quota(per_minute, clock)
    for _ in range(per_minute):
        quota.spend("a")
    assert (0, -(-60 // per_minute)) == quota.left("a")
    clock.advance(60)
    assert (per_minute, 0) == quota.left("a")


@pytest.mark.parametrize("start", [n / 7 for n in range(50)])
def test_a_whole_wait_is_told_whole(start: float) -> None:
    """One second before the next creation the wait is 1 s, whatever rounding makes of it."""
    clock = Clock()
    clock.advance(start)
    quota = Quota(3, clock)
    for _ in range(3):
        quota.spend("a")
    clock.advance(19)
    assert (0, 1) == quota.left("a")


def test_told(service: Service) -> None:
    """Every answer to a POST tells the policy, what is left, and when one more comes."""
    told = [service.post(BODY) for _ in range(4)]
    assert {'"create";q=3;w=60'} == {answer.headers["ratelimit-policy"] for answer in told}
    assert [(2, 20), (1, 20), (0, 20), (0, 20)] == [figures(answer) for answer in told]
    service.clock.advance(5.5)
    refused = service.post(b"{")
    assert (400, (0, 15)) == (refused.status, figures(refused))
    service.clock.advance(54.5)
    assert (3, 0) == figures(service.ask("POST", "/traces"))


def test_retry_after_is_never_before_t(service: Service) -> None:
    """Where an answer has both, Retry-After speaks of the quota; with another reason to wait it has one of them."""
    created = service.post(BODY)
    assert (202, False) == (created.status, "retry-after" in created.headers)
    service.engine.refuse = Busy("full", 7)
    busy = service.post(BODY)
    assert (503, "7", False) == (busy.status, busy.headers["retry-after"], "ratelimit" in busy.headers)
    service.engine.refuse = None
    for _ in range(5):
        answer = service.post(BODY)
        service.clock.advance(7.3)
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= figures(answer)[1]
    assert 429 == answer.status


def test_reason_phrase(service: Service) -> None:
    """The status line says in words what 429 and 422 mean."""
    for body, line in ((BODY, b"HTTP/1.1 429 Too Many Requests\r\n"), ({}, b"HTTP/1.1 422 Unprocessable ")):
        for _ in range(4):
            connection = service.connect()
            connection.request("POST", "/traces", *json_body(body, {}))
        assert connection.received.startswith(line)


def test_off(make_service: Callable[..., Service]) -> None:
    """Without a quota nothing is counted or told."""
    service = make_service()
    for _ in range(100):
        answer = service.post(BODY)
        assert 202 == answer.status
    assert not {"ratelimit", "ratelimit-policy"} & answer.headers.keys()


def test_only_creating_counts(service: Service) -> None:
    """Reading costs nothing, nor does a POST that makes no trace."""
    trace_id = finished_trace(service)
    for _ in range(5):
        assert 200 == service.get(f"/traces/{trace_id}").status
        assert 200 == service.get("/traces").status
        assert 422 == service.post({"target": "127.1"}).status
        service.engine.refuse = TargetNotAllowed("private")
        assert 403 == service.post(BODY).status
        service.engine.refuse = Busy("full", 7)
        assert 503 == service.post(BODY).status
        service.engine.refuse = None
    assert "ratelimit" not in service.get("/traces").headers
    assert [202, 202, 429] == [service.post(BODY).status for _ in range(3)]


def test_streams_count(service: Service) -> None:
    """A trace answered as a stream is a creation like any other, with the fields."""
    for accept in ("text/event-stream", "text/plain", "text/event-stream"):
        connection = service.connect()
        connection.request("POST", "/traces", *json_body(BODY, {"Accept": accept}))
        assert b'\r\nratelimit: "create";r=' in connection.received.lower()
        connection.leave()
    assert 429 == service.post(BODY).status


def test_each_client_has_its_own(service: Service) -> None:
    """Clients are told apart by IPv4 address and IPv6 /64."""
    for same in (["192.0.2.1"], ["192.0.2.2"], ["2001:db8::1", "2001:db8::2"], ["2001:db8:0:1::1"]):
        statuses = []
        for n in range(4):
            service.peer = peer(same[n % len(same)])
            statuses.append(service.post(BODY).status)
        assert [202, 202, 202, 429] == statuses


def test_not_spoofable(service: Service) -> None:
    """A forged X-Forwarded-For buys nothing, from a stranger or through the proxy; the proxy's clients are apart."""
    service.peer = peer("192.0.2.1")
    assert [202, 202, 202, 429] == [service.post(BODY, X_Forwarded_For=f"198.51.100.{n}").status for n in range(4)]
    service.peer = peer("10.0.0.1")
    through = [service.post(BODY, X_Forwarded_For=f"198.51.100.{n}, 203.0.113.5").status for n in range(4)]
    assert [202, 202, 202, 429] == through
    assert 202 == service.post(BODY, X_Forwarded_For="203.0.113.6").status
    assert 429 == service.post(BODY, X_Forwarded_For="192.0.2.1").status


def test_several_forwarded_fields(service: Service) -> None:
    """Several X-Forwarded-For fields are one list: the last one is nearest."""
    service.peer = peer("10.0.0.1")
    statuses = []
    for n in range(4):
        connection = service.connect()
        connection.send(
            b"POST /traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"
            b"X-Forwarded-For: 198.51.100.%d\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n" % n + b'{"target":"a"}'
        )
        statuses.append(connection.answer().status)
    assert [202, 202, 202, 429] == statuses


@given(st.integers(1, 200), st.lists(st.floats(0, 70), max_size=40), st.floats(0, 1e7))
def test_never_more_never_less(per_minute: int, pauses: list[float], start: float) -> None:
    """Against a bucket reckoned the plain way: what is told is what is given, and `t` seconds bring one more."""
    clock = Clock()
    clock.advance(start)
    quota = Quota(per_minute, clock)
    tokens = float(per_minute)
    for pause in pauses:
        clock.advance(pause)
        tokens = min(per_minute, tokens + pause * per_minute / 60)
        left, wait = quota.left("a")
        assert tokens - 1 - 1e-3 <= left <= tokens + 1e-3
        assert (left == per_minute) == (wait == 0)
        assert (left == 0) == (quota.refusal("a") is not None)
        if left:
            quota.spend("a")
            tokens -= 1
        else:
            clock.advance(wait)
            tokens = min(per_minute, tokens + wait * per_minute / 60)
            assert quota.left("a")[0] >= 1
            assert wait < 60 / per_minute + 1


def test_the_table_is_bounded() -> None:
    """Full buckets are forgotten first, then the fuller half: who spent most is refused still."""
    clock = Clock()
    quota = Quota(3, clock, most=10)
    for n in range(10):
        quota.spend(f"old {n}")
    clock.advance(20)
    for _ in range(3):
        quota.spend("greedy")
    assert 1 == quota.clients
    for n in range(100):
        quota.spend(f"new {n}")
        assert quota.clients <= 10
    assert quota.refusal("greedy") is not None


def test_a_full_table_serves_those_in_it() -> None:
    """Only a client that is new makes others forgotten."""
    quota = Quota(3, Clock(), most=10)
    for n in [*range(10), *range(10)]:
        quota.spend(f"client {n}")
    assert 10 == quota.clients
