"""The HTTP side: traces per second over it, and what it adds to a bare Klein application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..daemon import PORT, daemon, post
from ..grounds import Chain, simulated
from ..limits import SERVED
from ..routes import exact
from ..subjects import Subject, cpu_s
from ..table import Figure, Target, in_turn, median, quantile, row

ROUNDS = 5
RTT_MS = 20.0
CLIENTS = 64
TRACES = 500
ASKED = 3000
READERS = 16
KLEIN_PORT = 8081
#: A trace that never answers, to one prefix that takes one trace at a time: what is posted after it stays queued.
HELD = {**SERVED, "traces_per_prefix": 1, "max_running": 100_000}


@row("http")
def http() -> Iterator[Figure]:
    """Traces/s over HTTP on a 20 ms path, and requests/s against bare Klein."""
    yield from _traces()
    yield from _reading()
    yield from _posting()


def _traces() -> Iterator[Figure]:
    with (
        simulated(routers=10, rtt_ms=RTT_MS, copies=TRACES) as ground,
        Subject(ground, "client") as client,
        daemon(ground, client, **SERVED) as pid,
    ):
        targets = ground.targets
        requests = [post(target, probes=1) for target in targets]
        rates, costs, good = [], [], []
        for _ in range(ROUNDS):
            before = cpu_s(pid)
            found = client(do="ask", requests=requests, clients=CLIENTS, port=PORT, repeat=3, routes=True)
            costs.append((cpu_s(pid) - before) / (3 * TRACES) * 1e3)
            rates.append(3 * TRACES / found["wall_s"])
            good.append(exact(found["routes"], ground.way, targets))
        note = f"{min(good)} of {TRACES} exact"
        name = f"traces over HTTP, {CLIENTS} clients, 20 ms"
        yield Figure("http", name, "traces/s", median(rates), tuple(rates), target=Target(least=900), note=note)
        target = Target(most=2.0)
        yield Figure(
            "http", "our processor time per trace, HTTP included", "ms", median(costs), tuple(costs), target=target
        )
        found = client(do="ask", requests=requests[:100], clients=1, port=PORT)
        walls = [latency * 1e3 for latency in found["latencies_s"]]
        bound = Target(most=1.15 * RTT_MS + 3)
        note = f"p99 {quantile(walls, 0.99):.1f}; path lengths are remembered"
        yield Figure("http", "one trace over HTTP, one client, 20 ms", "ms", median(walls), target=bound, note=note)


def _rate(client: Subject, request: list[Any], port: int, status: int) -> float:
    found = client(do="ask", requests=[request], clients=READERS, port=port, repeat=ASKED)
    assert set(found["statuses"]) == {str(status)}, found["statuses"]
    return float(ASKED / found["wall_s"])


def _reading() -> Iterator[Figure]:
    with Chain() as ground, Subject(ground, "client") as client, daemon(ground, client, **SERVED):
        made = client(do="ask", requests=[post(ground.targets[0], probes=3)], clients=1, port=PORT)
        trace_id = json.loads(made["body"])["id"]
        path = f"/traces/{trace_id}"
        got = client(do="ask", requests=[["GET", path, {}, ""]], clients=1, port=PORT)
        tag = got["fields"]["etag"]
        settings = {"port": KLEIN_PORT, "document": got["body"]}
        with Subject(ground, "bare_klein", **settings):
            rates = in_turn(
                {
                    "bare Klein": lambda: _rate(client, ["GET", path, {}, ""], KLEIN_PORT, 200),
                    "ours": lambda: _rate(client, ["GET", path, {}, ""], PORT, 200),
                    "ours, 304": lambda: _rate(client, ["GET", path, {"If-None-Match": tag}, ""], PORT, 304),
                },
                ROUNDS,
            )
    yield from _against("GET of a finished trace", rates, {"ours": 0.9, "ours, 304": 1.0})


def _posting() -> Iterator[Figure]:
    with (
        simulated(routers=1, rtt_ms=1, copies=1, target_silent=True) as ground,
        Subject(ground, "client") as client,
        daemon(ground, client, **HELD),
        Subject(ground, "bare_klein", port=KLEIN_PORT),
    ):
        (target,) = ground.targets
        body = json.dumps({"target": target, "deadline_ms": 300_000, "timeout_ms": 10_000, "resolve_names": False})
        request = ["POST", "/traces", {"Content-Type": "application/json"}, body]
        rates = in_turn(
            {
                "bare Klein": lambda: _rate(client, request, KLEIN_PORT, 202),
                "ours": lambda: _rate(client, request, PORT, 202),
            },
            ROUNDS,
        )
    yield from _against("POST of a trace that waits", rates, {"ours": 1.2})


def _against(what: str, rates: dict[str, list[float]], least: dict[str, float]) -> Iterator[Figure]:
    base = median(rates["bare Klein"])
    for name, samples in rates.items():
        own = name in least
        yield Figure(
            "http",
            f"{what}: {name}",
            "1/s",
            median(samples),
            tuple(samples),
            median(samples) / base if own else None,
            "Klein" if own else "",
            Target(least=least[name]) if own else None,
        )
