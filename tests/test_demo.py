"""`make demo` as a newcomer meets it: a program that prints an address, and what is behind that."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from netsim import load, namespace, truth_of

ROOT = Path(__file__).parents[1]
INTERNET = load(ROOT / "demo/internet.toml")
HOSTILE = load("hostile_names")
COMMAND = [sys.executable, "-m", "demo", "--port"]

pytestmark = pytest.mark.usefixtures("internet")  # skips where there is no simulated internet


@define
class Demo:
    """A running demonstration and what it printed."""

    process: subprocess.Popen[str]
    words: str

    @property
    def port(self) -> int:
        """The port of the printed address."""
        found = re.search(r"http://127\.0\.0\.1:([0-9]+) ", self.words)
        assert found, self.words
        return int(found[1])

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """One request on a connection of its own; the answer, whose body is still to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body and json.dumps(body), headers)
        return connection.getresponse()

    def trace(self, target: str, **fields: Any) -> dict[str, Any]:
        """A finished trace."""
        answer = self.ask("POST", "/traces", {"target": target, **fields}, Prefer="wait=60")
        document: dict[str, Any] = json.load(answer)
        assert "completed" == document["status"], document
        return document

    def members(self) -> set[int]:
        """The processes in its network namespace."""
        return members(os.readlink(f"/proc/{self.process.pid}/ns/net"))


def members(of_namespace: str) -> set[int]:
    """The processes in a network namespace."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(entry / "ns/net") == of_namespace:
                found.add(int(entry.name))
    return found


def start(*command: str, **variables: str) -> Demo:
    """Start it on a free port and wait until it has said everything."""
    process = subprocess.Popen(
        [*command, *COMMAND, "0"],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    words = ""
    while "Ctrl-C" not in words:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"it ended early: {process.communicate()[1]}")
        words += line
    return Demo(process, words)


def stop(demo: Demo) -> None:
    """End it if it has not ended."""
    demo.process.terminate()
    demo.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demonstration for the tests that only look."""
    demo = start()
    yield demo
    stop(demo)


@pytest.fixture
def own_demo() -> Iterator[Demo]:
    """A demonstration to be ended."""
    demo = start()
    yield demo
    demo.process.kill()
    demo.process.communicate(timeout=30)


def test_it_prints_every_target_with_what_is_special_about_it(demo: Demo) -> None:
    """Each target of the scenario is listed by a name that can be traced, and the commands are for this address."""
    for target in INTERNET.targets:
        assert re.search(rf"^ +{target.name}\.demo\.test +{re.escape(target.summary)}$", demo.words, re.MULTILINE)
    commands = re.findall(r"^ +(curl .*)$", demo.words, re.MULTILINE)
    assert 3 == len(commands) == len([c for c in commands if f"http://127.0.0.1:{demo.port}/traces" in c])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_commands_work(demo: Demo) -> None:
    """What is printed can be pasted into a shell, and shows what it is said to show."""
    live, parallel, mpls = (
        subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout
        for command in re.findall(r"^ +(curl .*)$", demo.words, re.MULTILINE)
    )
    assert re.search(r"^23  long\.demo\.test \(", live, re.MULTILINE)
    assert 4 == len({path["path_id"] for path in json.loads(parallel)["paths"]})
    assert any(probe["mpls"] for hop in json.loads(mpls)["hops"] for probe in hop["probes"])


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("target", INTERNET.targets, ids=lambda target: target.name)
def test_every_named_target_is_traced(demo: Demo, target: Any, family: str) -> None:
    """By its name each target is found where the scenario says, through routers with the names it gives them."""
    document = demo.trace(f"{target.name}.demo.test", family=family, probes=10 if target.name == "lossy" else 3)
    truth = truth_of(INTERNET, target, family, "icmp")
    assert (truth.address, truth.stop_reason) == (document["target"]["address"], document["stop_reason"])
    found = [{responder["address"] for responder in hop["responders"]} for hop in document["hops"]]
    assert found in [[{hop.address} - {None} for hop in way] for way in truth.ways]
    for hop in document["hops"]:
        for responder in hop["responders"]:
            assert (responder["hostname"], (responder["asn"] or {}).get("number")) == known(target, family, responder)


def known(target: Any, family: str, responder: dict[str, Any]) -> tuple[str, int | None]:
    """The name and AS number the scenario gives an address on the way to a target."""
    for number in {target.at, *(number for way in target.variants() for number in way)}:
        if INTERNET.address(family, number, target) == responder["address"]:
            name = f"{target.name}.demo.test" if number == target.at else INTERNET.router(number).name
            return name or "", {0: 64496, 1: 64497, 2: 64498, 3: 64499}.get(number // 256)
    raise AssertionError(responder)


def test_the_bad_link_and_the_reluctant_router_are_told_apart(demo: Demo) -> None:
    """Loss on the way is the target's too; a router that answers rarely is known as such."""
    lossy = demo.trace("lossy.demo.test", family="ipv4", probes=40, interval_ms=10)
    assert 10 < lossy["hops"][-1]["stats"]["loss_pct"] < 60
    limited = demo.trace("limited.demo.test", family="ipv4", probes=10)
    assert [5] == [hop["ttl"] for hop in limited["hops"] if hop["rate_limited"]]
    assert 0 == limited["hops"][-1]["stats"]["loss_pct"]


def test_what_the_page_suggests_is_there(demo: Demo) -> None:
    """The page's first suggestion can be traced, over TCP too."""
    for fields in ({}, {"protocol": "tcp", "port": 443}):
        document = demo.trace("example.net", **fields)
        assert ("reached", "example.net") == (
            document["stop_reason"],
            document["hops"][-1]["responders"][0]["hostname"],
        )


def test_hostile_names_stay_out(demo: Demo) -> None:
    """No hostile reverse name comes out; a network's name comes out as printable text of bounded length."""
    document = demo.trace("hostile.demo.test", family="ipv4")
    responders = [hop["responders"][0] for hop in document["hops"]]
    names = [responder["hostname"] for responder in responders]
    assert [None] * 7 + ["ae0.core1.fra.example.net", "hostile.demo.test"] == names
    system = responders[0]["asn"]["name"]
    assert system.startswith("<img src=x")
    assert system.isprintable()
    assert len(system) <= 100


def test_the_page_is_at_the_printed_address(demo: Demo) -> None:
    """A browser gets the page."""
    answer = demo.ask("GET", "/")
    assert (200, "text/html; charset=utf-8") == (answer.status, answer.getheader("Content-Type").lower())
    assert b"<title>" in answer.read()


def test_events_come_through_as_they_happen(demo: Demo) -> None:
    """A hop is told while its trace still runs, which it does for as long as nobody ends it."""
    wish = {"target": "plain.demo.test", "probes": 2, "interval_ms": 10_000}
    stream = demo.ask("POST", "/traces", wish, Accept="text/event-stream")
    location = stream.getheader("Location")
    assert location is not None
    while b"event: hop" not in (line := stream.readline()):
        assert line
    assert "running" == json.load(demo.ask("GET", location))["status"]
    assert 204 == demo.ask("DELETE", location).status
    assert b"cancelled" in stream.read()


def test_a_taken_port_is_a_clear_message(demo: Demo) -> None:
    """Where the port is in use it says so and how to choose another, and ends."""
    done = subprocess.run([*COMMAND, str(demo.port)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (1, "") == (done.returncode, done.stdout)
    assert f"demo: port {demo.port} is in use; choose another: make demo PORT={demo.port + 1}\n" == done.stderr


def test_no_simulation_is_a_clear_message() -> None:
    """Without a TUN device it says what is missing and what helps, and leaves nothing behind."""
    missing = {**os.environ, namespace.TUN: "/nonexistent/tun"}
    done = subprocess.run([*COMMAND, "0"], cwd=ROOT, env=missing, capture_output=True, text=True, timeout=60)
    assert (1, "") == (done.returncode, done.stdout)
    assert "cannot open /nonexistent/tun" in done.stderr
    assert "modprobe tun" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_everything(own_demo: Demo) -> None:
    """Ctrl-C in the middle of a trace ends its stream in order and leaves no process, namespace, port or file."""
    home = os.readlink(f"/proc/{own_demo.process.pid}/ns/net")
    assert home != namespace.current()
    control = set(Path(tempfile.gettempdir()).glob("netsim-*.sock"))
    assert 5 == len(own_demo.members())  # itself, the simulator, the daemon, a prober for each family
    wish = {"target": "plain.demo.test", "probes": 2, "interval_ms": 10_000}
    stream = own_demo.ask("POST", "/traces", wish, Accept="text/event-stream")
    assert stream.readline()
    own_demo.process.send_signal(signal.SIGINT)
    assert b"event: end" in stream.read()
    assert ("", "") == own_demo.process.communicate(timeout=60)
    assert 0 == own_demo.process.returncode
    assert set() == members(home)
    assert 1 == len(control - set(Path(tempfile.gettempdir()).glob("netsim-*.sock")))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own_demo.port))


def test_nothing_outlives_it(own_demo: Demo) -> None:
    """Killed without a chance to clean up, it takes everything with it all the same."""
    home = os.readlink(f"/proc/{own_demo.process.pid}/ns/net")
    ends = [os.pidfd_open(pid) for pid in own_demo.members()]
    own_demo.process.kill()
    for end in ends:
        assert select.select([end], [], [], 60)[0]
        os.close(end)
    assert set() == members(home)


def test_no_privilege_is_needed_where_user_namespaces_are(open_tun: str, nobody: list[str]) -> None:
    """An ordinary user gets the same."""
    if Path("/proc/sys/user/max_user_namespaces").read_text() == "0\n":
        pytest.skip("no user namespaces here")
    demo = start(*nobody, **{namespace.TUN: open_tun})
    try:
        assert "reached" == demo.trace("plain.demo.test")["stop_reason"]
        home = os.readlink(f"/proc/{demo.process.pid}/ns/net")
        demo.process.send_signal(signal.SIGINT)
        assert 0 == demo.process.wait(60)
        assert set() == members(home)
    finally:
        stop(demo)
