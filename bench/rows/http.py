"""The HTTP side: traces per second over it, and what it adds to a bare Klein application."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..daemon import PORT, daemon, post
from ..grounds import Chain, simulated
from ..limits import SERVED
from ..routes import judged
from ..subjects import Subject, SubjectFailed, cpu_s
from ..table import Figure, Plan, Runs, Target, in_turn, quantile, row

ROUNDS = 5
RTT_MS = 20.0
CLIENTS = 64
TRACES = 500
ASKED = 3000
READERS = 16
KLEIN_PORT, TUNED_PORT = 8081, 8082
#: A trace that never answers, to one prefix that takes one trace at a time: what is posted after it stays queued.
HELD = {**SERVED, "traces_per_prefix": 1, "max_running": 100_000}


@row("http-traces")
def http_traces(plan: Plan) -> Iterator[Figure]:
    """Traces/s over HTTP on a 20 ms path, 64 clients and one."""
    with (
        simulated(routers=10, rtt_ms=RTT_MS, copies=plan.size(TRACES, 5)) as ground,
        Subject(ground, "client") as client,
        daemon(ground, client, **SERVED) as pid,
    ):
        targets = ground.targets
        requests = [post(target, probes=1) for target in targets]
        total = 3 * len(targets)

        def crowd() -> dict[str, Any]:
            before = cpu_s(pid)
            found = client(do="ask", requests=requests, clients=CLIENTS, port=PORT, repeat=3, routes=True)
            return {**found, "cpu_s": cpu_s(pid) - before}

        def alone() -> dict[str, Any]:
            return client(do="ask", requests=requests[:100], clients=1, port=PORT)

        results = in_turn({"crowd": crowd, "alone": alone}, plan.rounds(ROUNDS))

        def rate(result: Mapping[str, Any]) -> float:
            return float(total / result["wall_s"])

        def cost(result: Mapping[str, Any]) -> float:
            return float(result["cpu_s"] / total * 1e3)

        rates = judged(results["crowd"], ground.way, targets, rate)
        yield Figure(f"traces per second, {CLIENTS} clients", "1/s", rates, target=Target(least=900))
        costs = judged(results["crowd"], ground.way, targets, cost)
        yield Figure("our processor time per trace, with HTTP", "ms", costs, target=Target(most=2.0))
        latencies = [[latency * 1e3 for latency in result["latencies_s"]] for result in results["alone"]]
        walls = Runs([quantile(round_, 0.5) for round_ in latencies])
        bound = Target(most=1.15 * RTT_MS + 3)
        note = f"p99 {max(quantile(round_, 0.99) for round_ in latencies):.1f} ms; path lengths are remembered"
        yield Figure("one client, one trace", "ms", walls, target=bound, note=note)


@row("http-requests")
def http_requests(plan: Plan) -> Iterator[Figure]:
    """Requests/s against a bare Klein application: reading a finished trace, creating one."""
    asked = plan.size(ASKED, 50)
    yield from _reading(asked, plan.rounds(ROUNDS))
    yield from _posting(asked, plan.rounds(ROUNDS))


def _rate(client: Subject, request: list[Any], port: int, status: int, asked: int) -> float:
    found = client(do="ask", requests=[request], clients=READERS, port=port, repeat=asked)
    if set(found["statuses"]) != {str(status)}:
        raise SubjectFailed(f"{request[0]} was answered with {found['statuses']}, not {status}")
    return float(asked / found["wall_s"])


def _ours(client: Subject, request: list[Any], status: int, asked: int, pid: int, costs: list[float]) -> float:
    """Our rate; what each request cost the daemon, in microseconds, is added to `costs`."""
    before = cpu_s(pid)
    rate = _rate(client, request, PORT, status, asked)
    costs.append((cpu_s(pid) - before) / asked * 1e6)
    return rate


def _reading(asked: int, rounds: int) -> Iterator[Figure]:
    with Chain() as ground, Subject(ground, "client") as client, daemon(ground, client, **SERVED) as pid:
        made = client(do="ask", requests=[post(ground.targets[0], probes=3)], clients=1, port=PORT)
        path = f"/traces/{json.loads(made['body'])['id']}"
        got = client(do="ask", requests=[["GET", path, {}, ""]], clients=1, port=PORT)
        plain = ["GET", path, {}, ""]
        conditional = ["GET", path, {"If-None-Match": got["fields"]["etag"]}, ""]
        costs: list[float] = []

        with Subject(ground, "bare_klein", port=KLEIN_PORT, document=got["body"]):
            results = in_turn(
                {
                    "Klein": lambda: _rate(client, plain, KLEIN_PORT, 200, asked),
                    "ours": lambda: _ours(client, plain, 200, asked, pid, costs),
                    "304": lambda: _rate(client, conditional, PORT, 304, asked),
                },
                rounds,
            )
    rates = {name: Runs(samples) for name, samples in results.items()}
    klein = {"Klein": rates["Klein"]}
    yield Figure("GET of a finished trace", "1/s", rates["ours"], klein, "Klein", Target(least=0.9))
    yield Figure("the same, answered 304", "1/s", rates["304"], {"200": rates["ours"]}, "200", Target(least=1.0))
    yield Figure("our processor time per GET", "us", Runs(costs))


def _posting(asked: int, rounds: int) -> Iterator[Figure]:
    with (
        simulated(routers=1, rtt_ms=1, copies=1, target_silent=True) as ground,
        Subject(ground, "client") as client,
        daemon(ground, client, **HELD) as pid,
        Subject(ground, "bare_klein", port=KLEIN_PORT),
        Subject(ground, "bare_klein", port=TUNED_PORT, parse_forms=False),
    ):
        (target,) = ground.targets
        body = json.dumps({"target": target, "deadline_ms": 300_000, "timeout_ms": 10_000, "resolve_names": False})
        request = ["POST", "/traces", {"Content-Type": "application/json"}, body]
        costs: list[float] = []

        results = in_turn(
            {
                "Klein": lambda: _rate(client, request, KLEIN_PORT, 202, asked),
                "Klein, no form parsing": lambda: _rate(client, request, TUNED_PORT, 202, asked),
                "ours": lambda: _ours(client, request, 202, asked, pid, costs),
            },
            rounds,
        )
    rates = {name: Runs(samples) for name, samples in results.items()}
    own = rates.pop("ours")
    yield Figure("POST of a trace that waits its turn", "1/s", own, rates, "Klein", Target(least=1.2))
    yield Figure("our processor time per POST", "us", Runs(costs))
