"""The interface of twisted-mtr: through the simulated internet, on a virtual clock with a fake mtr-packet, and the
programs of the package itself."""

import copy
import logging
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tomllib
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fakes import FakeMtr, FakeProcess, Faults, ProcessClock
from netsim import namespace
from netsim.scenario import SCENARIOS
from tracerouted.mtrpacket import Supervisor
from tracerouted.twisted_mtr import errors, logger, mtr, tracing, utils
from tracerouted.twisted_mtr.results import Milliseconds

LOCAL = {"local_ipv4": IPv4Address("44.0.0.2"), "local_ipv6": IPv6Address("2a10:44::2")}
ONLY_IPV4 = {"local_ipv4": IPv4Address("44.0.0.2")}
TARGET = IPv4Address("192.0.2.200")
ROUTE = ["192.0.2.1", None, "192.0.2.3", "192.0.2.200"]  # through a FakeMtr as it comes


class Failed(Exception):
    """What a failure callback got: hop number, request, error, extra."""


def deferred_trace(route, target, *args, **options):
    """A trace as a Deferred: the success callback's arguments as a tuple, or `Failed`."""
    done = Deferred()
    route.trace(
        lambda *result: done.callback(result), lambda *why: done.errback(Failed(*why)), target, *args, **options
    )
    return done


def addresses(result):
    """The addresses of a success callback's hops, None where silent."""
    return [address for _, address, _ in result[4]]


class Internet(TestCase):
    """Real mtr-packet processes in the simulated internet."""

    timeout = 60

    @pytest.fixture(autouse=True)
    def _lab(self, lab):
        self.lab = lab

    def spawn(self, **local):
        """What a program does: a `TraceRoute`, and mtr-packet with it as its protocol."""
        path = utils.find_binary("mtr-packet")
        route = mtr.TraceRoute(mtr_binary_path=path, **(local or LOCAL))
        reactor.spawnProcess(route, "mtr-packet", [path], {})
        self.addCleanup(route.stop)
        return route

    def target(self, name, family="ipv4"):
        """A simulated target's address."""
        return ip_address(self.lab.address(name, family))

    def truth(self, name, family="ipv4", protocol="icmp"):
        """The addresses a trace must find."""
        return [hop.address for hop in self.lab.truth(name, family, protocol).ways[0]]


class TraceTests(Internet):
    """Routes, protocols and families."""

    async def test_exact_routes(self):
        """Each protocol over each family gives the exact route, all at once on one `TraceRoute`."""
        route = self.spawn()
        asked, results = [], []
        for name in ("plain", "silent-middle"):
            for family in ("ipv4", "ipv6"):
                for protocol, port in (("icmp", -1), ("tcp", 443), ("udp", 5353)):
                    asked.append((name, family, protocol, port))
                    results.append(deferred_trace(route, self.target(name, family), protocol, port))
        for (name, family, protocol, port), result in zip(asked, await gatherResults(results), strict=True):
            started_at, target, *echoed, hops = result
            assert isinstance(started_at, float)
            assert (self.target(name, family), [protocol, port]) == (target, echoed)
            assert [number for number, _, _ in hops] == list(range(1, len(hops) + 1))
            assert self.truth(name, family, protocol) == addresses(result)

    async def test_hundreds_at_once(self):
        """300 traces at once to distinct targets are all exact: replies that arrive together are all read."""
        route = self.spawn()
        scenario = self.lab.load(tomllib.loads((SCENARIOS / "large" / "many.toml").read_text()))
        self.addCleanup(self.lab.unload, scenario.name)
        names = [target.name for target in scenario.targets][:300]
        assert 300 == len(names)
        results = await gatherResults([deferred_trace(route, self.target(name)) for name in names])
        assert [self.truth(name) for name in names] == [addresses(result) for result in results]

    async def test_five_silent_hops(self):
        """Five silent hops on the way do not cut a route short."""
        result = await deferred_trace(self.spawn(), self.target("five-silent"))
        assert self.truth("five-silent") == addresses(result)

    async def test_silent_target(self):
        """A target that is silent ends the trace by success, with `NO_REPLY_MAX_TTL` silent hops at the end."""
        result = await deferred_trace(self.spawn(), self.target("silent-end"))
        assert self.truth("silent-end") + [None] * 5 == addresses(result)

    async def test_skipped_hops(self):
        """Hops below `ttl` are there, as silent ones, and are not probed."""
        result = await deferred_trace(self.spawn(), self.target("plain"), ttl=4)
        assert [None] * 3 + self.truth("plain")[3:] == addresses(result)
        assert min(self.lab.dealt("plain", "ipv4", "icmp")) == 4

    async def test_milliseconds(self):
        """RTTs are ints of milliseconds, and know their microseconds."""
        route = self.spawn()
        _, _, _, _, hops = await deferred_trace(route, self.target("plain"))
        expected = self.lab.truth("plain", "ipv4", "icmp").ways[0]
        for (_, _, rtt), hop in zip(hops, expected, strict=True):
            assert isinstance(rtt, int)
            assert hop.rtt_us * 0.999 <= rtt.microseconds <= hop.rtt_us + 50_000
            assert abs(rtt - rtt.microseconds / 1000) <= 0.5

    async def test_unreachable(self):
        """A router that says unreachable, in whatever way, fails the trace and is named; it is never an arrival."""
        route = self.spawn()
        for name, family, hop in (
            ("host-unreachable", "ipv4", 6),
            ("host-unreachable", "ipv6", 6),
            ("router-port-unreachable", "ipv4", 4),
            ("router-port-unreachable", "ipv6", 4),
        ):
            target = self.target(name, family)
            with pytest.raises(Failed) as caught:
                await deferred_trace(route, target, extra="mine")
            number, request, error, extra = caught.value.args
            responder = self.truth(name, family)[-1]
            assert (hop, "mine") == (number, extra)
            assert f"failed to send-probe to {target}: no route to host, says {responder}" == error
            assert ["send-probe", "ttl", str(hop)] == [request[0], *request[-2:]]
            assert str(target) in request

    async def test_wrong_local_address(self):
        """A local address that is not this host's fails a TCP trace, in words. (Raw ICMP leaves from any address.)"""
        with pytest.raises(Failed) as caught:
            await deferred_trace(self.spawn(local_ipv4="192.0.2.7"), self.target("plain"), "tcp", 80)
        number, _, error, _ = caught.value.args
        assert 1 == number
        assert error.startswith(f"failed to send-probe to {self.target('plain')}: ")

    async def test_loopback(self):
        """A trace to this host is one hop, with ICMP and with TCP to a closed port, in either family."""
        for address in (IPv4Address("127.0.0.1"), IPv6Address("::1")):
            route = self.spawn(**{f"local_ipv{address.version}": address})
            for protocol, port in (("icmp", -1), ("tcp", 8080)):
                result = await deferred_trace(route, address, protocol, port)
                assert (address, protocol, port) == result[1:4]
                assert [str(address)] == addresses(result)

    async def test_two_routes_at_once(self):
        """Two `TraceRoute`s in one program trace side by side."""
        routes = [self.spawn(), self.spawn()]
        results = await gatherResults(
            [deferred_trace(route, self.target(name)) for route in routes for name in ("plain", "five-silent")]
        )
        assert [self.truth("plain"), self.truth("five-silent")] * 2 == [addresses(result) for result in results]

    async def test_killed(self):
        """mtr-packet killed in the middle of traces: they end with the exact routes all the same."""
        route = self.spawn()
        self.lab.pause()
        results = gatherResults([deferred_trace(route, self.target(name)) for name in ("plain", "five-silent")])
        while not self.lab.dealt("plain", "ipv4", "icmp"):
            await deferLater(reactor, 0.001)
        route.transport.signalProcess("KILL")
        self.lab.resume()
        assert [self.truth("plain"), self.truth("five-silent")] == [addresses(result) for result in await results]

    async def test_ended_on_purpose(self):
        """The program lets go of mtr-packet: what has not ended fails, and so does what is asked for later."""
        route = self.spawn()
        self.lab.pause()
        waiting = [deferred_trace(route, self.target("plain", family)) for family in ("ipv4", "ipv6")]
        route.transport.loseConnection()
        for done in waiting:
            with pytest.raises(Failed, match="mtr-packet was ended"):
                await done
        with pytest.raises(Failed, match="mtr-packet was ended"):
            await deferred_trace(route, self.target("plain"))

    async def test_spawned_again(self):
        """A `TraceRoute` whose mtr-packet ended can be given another."""
        route = self.spawn()
        await deferred_trace(route, self.target("plain"))
        await route.stop()
        reactor.spawnProcess(route, "mtr-packet", [route.mtr_binary_path], {})
        assert self.truth("plain") == addresses(await deferred_trace(route, self.target("plain")))


def pending(clock):
    """What is still to be called, but for what fake processes have yet to say."""
    calls = clock.getDelayedCalls()
    return [call for call in calls if not isinstance(getattr(call.func, "__self__", None), FakeProcess)]


class Program(mtr.TraceRoute):
    """A `TraceRoute` that `ProcessClock` can tell from supervisors: it wants their processes one at a time."""

    _owner = object()


class Virtual(SynchronousTestCase):
    """A `TraceRoute` on a virtual clock with fake mtr-packets."""

    def begin(self, *fakes, **local):
        """A program that has spawned; each spawn gets the next of `fakes`, the last one for ever."""
        remaining = list(fakes) or [FakeMtr()]
        self.clock = ProcessClock(lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0])
        for_clock = partial(
            Supervisor,
            wall_clock=self.clock.wall,
            limit_descriptors=self.clock.limit_descriptors,
            find_binary=lambda path: path,
        )
        self.patch(tracing, "Supervisor", for_clock)
        self.route = Program("/fake", **(local or LOCAL), reactor=self.clock)
        self.clock.spawnProcess(self.route, "mtr-packet", ["/fake"], {})
        self.addCleanup(self.end, self.clock, self.route)

    def end(self, clock, route):
        """Nothing is left to be called once all is stopped."""
        stopped = route.stop()
        clock.run(2)
        self.successResultOf(stopped)
        assert [] == pending(clock)
        assert all(child.reaped for child in clock.spawned)

    def commands(self, word=b"192.0.2.200"):
        """The probes to the target, of all children."""
        return [line for child in self.clock.spawned for line in child.fake.commands if word in line.split()]


class EngineTests(Virtual):
    """What the engine behind the interface changes."""

    def test_parallel(self):
        """Hops are probed side by side: a trace takes the target's RTT, not the sum of all hops'."""
        self.begin(FakeMtr(hops=("192.0.2.1", "192.0.2.2", "192.0.2.3"), rtt_s=0.5))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(2.2)  # 0.5 + 1 + 1.5 + 2 are 5 s
        assert ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.200"] == addresses(self.successResultOf(done))

    def test_any_chunks(self):
        """Replies may come in pieces of one byte, or many at once."""
        for faults in (Faults(chunk=1), Faults(chunk=7), Faults()):
            self.begin(FakeMtr(faults=faults))
            done = [deferred_trace(self.route, TARGET) for _ in range(20)]
            self.clock.run(2)
            for each in done:
                assert ROUTE == addresses(self.successResultOf(each))

    def test_garbage(self):
        """Lines that are no replies disturb nothing."""
        self.begin(FakeMtr(faults=Faults(garbage_at_read=2)))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(10)
        assert ROUTE == addresses(self.successResultOf(done))

    def test_endless_path(self):
        """A path without an end is followed to `MAX_TTL` and no farther, with few probes."""
        self.begin(FakeMtr(hops=tuple(f"198.51.100.{n}" for n in range(1, 101))))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(70)
        assert [f"198.51.100.{n}" for n in range(1, 51)] == addresses(self.successResultOf(done))
        assert len(self.commands()) <= 51  # and the scout

    def test_max_ttl_can_be_set(self):
        """A subclass's `MAX_TTL` holds."""
        self.begin(FakeMtr(hops=tuple(f"198.51.100.{n}" for n in range(1, 101))))
        self.route.MAX_TTL = 7
        done = deferred_trace(self.route, TARGET)
        self.clock.run(70)
        assert [f"198.51.100.{n}" for n in range(1, 8)] == addresses(self.successResultOf(done))

    def test_ports_are_sent(self):
        """UDP and TCP probes carry the port asked for, up to the highest."""
        for protocol, port in (("udp", 1), ("udp", 5353), ("udp", 32999), ("tcp", 1), ("tcp", 65535)):
            self.begin()
            done = deferred_trace(self.route, TARGET, protocol, str(port))
            self.clock.run(2)
            assert (protocol, port) == self.successResultOf(done)[2:4]
            assert self.commands()
            for line in self.commands():
                words = line.decode().split()
                assert [protocol, str(port)] == [words[words.index(w) + 1] for w in ("protocol", "port")]

    def test_one_udp_flow(self):
        """A UDP trace keeps to one flow where mtr-packet can, and leaves out the source port where it cannot."""
        for broken in (False, True):
            self.begin(FakeMtr(faults=Faults(flow_broken=broken)))
            done = deferred_trace(self.route, TARGET, "udp", 5353)
            self.clock.run(5)
            self.successResultOf(done)
            ports = {tuple(re.findall(rb"local-port (\d+)", line)) for line in self.commands()}
            assert 1 == len(ports)
            assert broken is (ports == {()})

    def test_deaths(self):
        """Whatever way mtr-packet dies by accident, in the middle of traces, they go on with another."""
        for faults in (
            Faults(exit_at_read=2, exit_code=1),
            Faults(exit_at_read=3, exit_code=139),
            Faults(hang_at_read=3),
            Faults(deaf=True),
        ):
            self.begin(FakeMtr(faults=faults), FakeMtr(), **ONLY_IPV4)
            done = [deferred_trace(self.route, TARGET) for _ in range(3)]
            self.clock.run(15)
            for each in done:
                assert ROUTE == addresses(self.successResultOf(each))
            assert 2 == len(self.clock.spawned)

    def test_nothing_left_after_an_accident(self):
        """When the program's mtr-packet died and the traces are over, the one that replaced it is ended."""
        self.begin(FakeMtr(faults=Faults(exit_at_read=3)), FakeMtr())
        done = deferred_trace(self.route, TARGET)
        self.clock.run(5)
        assert ROUTE == addresses(self.successResultOf(done))
        assert [True, True] == [child.reaped for child in self.clock.spawned]
        assert [] == pending(self.clock)
        again = deferred_trace(self.route, TARGET)
        self.clock.run(5)
        assert ROUTE == addresses(self.successResultOf(again))

    def test_never_alive(self):
        """mtr-packet that dies each time it is started: traces fail within seconds, with its last words."""
        self.begin(FakeMtr(faults=Faults(exit_at_spawn=1, stderr="mtr-packet: Failure to open raw sockets")))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(tracing.PATIENCE_S + 1)
        number, _, error, _ = self.failureResultOf(done, Failed).value.args
        assert 1 == number
        assert "Failure to open raw sockets" in error

    def test_no_capability(self):
        """Without raw sockets mtr-packet gives wrong answers: traces fail instead, saying what to do."""
        self.begin(FakeMtr(faults=Faults(datagram=True)))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(tracing.PATIENCE_S + 1)
        assert "CAP_NET_RAW" in self.failureResultOf(done, Failed).value.args[2]
        assert [] == self.commands()

    def test_ended_by_signal(self):
        """SIGTERM is an end on purpose: traces fail, nothing is started in its place."""
        self.begin(FakeMtr(rtt_s=1.0))
        done = deferred_trace(self.route, TARGET)
        self.clock.run(0.5)
        self.clock.child.signalProcess("TERM")
        self.clock.run(1)
        assert "mtr-packet was ended" == self.failureResultOf(done, Failed).value.args[2]
        assert 1 == len(self.clock.spawned)

    def test_one_process_if_one_will_do(self):
        """Traces of one family use the program's own process and no other."""
        for name, target in (("local_ipv4", TARGET), ("local_ipv6", IPv6Address("2001:db8::200"))):
            self.begin(**{name: LOCAL[name]})
            done = deferred_trace(self.route, target)
            self.clock.run(5)
            self.successResultOf(done)
            assert 1 == len(self.clock.spawned)

    def test_idle(self):
        """A `TraceRoute` that traces nothing does nothing."""
        self.begin()
        assert [] == pending(self.clock)

    def test_local_errors(self):
        """What keeps probes from leaving this host is told in words, as are the hop and the probe."""
        for word, meaning in (
            ("network-down", "network is down"),
            ("permission-denied", "permission denied"),
            ("host-down", "host-down"),
        ):

            class Broken(FakeMtr):
                def _probe(self, values, word=word):
                    delay, text = super()._probe(values)
                    return (delay, text) if b"127.0.0.1" in values.values() else (0.0, word.encode())

            self.begin(Broken())
            done = deferred_trace(self.route, TARGET, "tcp", 443, ttl=2)
            self.clock.run(5)
            number, request, error, extra = self.failureResultOf(done, Failed).value.args
            assert (2, f"failed to send-probe to {TARGET}: {meaning}", None) == (number, error, extra)
            sent = "send-probe local-ip-4 44.0.0.2 ip-4 192.0.2.200 timeout 5 protocol tcp port 443 ttl 2"
            assert sent == " ".join(request)

    def test_bad_callbacks(self):
        """A callback that raises is logged, and takes no other trace with it."""
        self.begin()
        self.route.trace(lambda *result: 1 / 0, self.fail, TARGET)
        done = deferred_trace(self.route, TARGET)
        self.clock.run(2)
        self.successResultOf(done)
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

    def test_callback_of_two(self):
        """A success callback of two arguments gets the address and the hops, as in the README's first example."""
        self.begin()
        seen = []
        self.route.trace(lambda target_ip, hops: seen.append((target_ip, len(hops))), self.fail, TARGET)
        self.route.trace(lambda *result: seen.append(len(result)), self.fail, TARGET)
        self.clock.run(2)
        assert {(TARGET, 4), 5} == set(seen)

    def test_traces_from_callbacks(self):
        """A callback may ask for the next trace."""
        self.begin()
        seen = []

        def next_one(*result):
            seen.append(addresses(result))
            if len(seen) < 5:
                self.route.trace(next_one, self.fail, TARGET)

        self.route.trace(next_one, self.fail, TARGET)
        self.clock.run(10)
        assert [ROUTE] * 5 == seen

    def test_never_at_once(self):
        """No callback is called from inside `trace`, even when the answer is known."""
        self.begin()
        self.clock.child.exit(0)
        self.clock.run(0.1)
        done = deferred_trace(self.route, TARGET)
        self.assertNoResult(done)
        self.clock.run(0.1)
        self.failureResultOf(done, Failed)


class ArgumentTests(Virtual):
    """What is refused at once."""

    def test_refusals(self):
        """Wrong arguments raise `MTRError`, and nothing is sent."""
        self.begin(**ONLY_IPV4)
        for target, options in (
            (TARGET, {"protocol": "sctp"}),
            (TARGET, {"protocol": "tcp"}),
            (TARGET, {"protocol": "udp", "port": None}),
            (TARGET, {"protocol": "tcp", "port": 0}),
            (TARGET, {"protocol": "tcp", "port": 65536}),
            (TARGET, {"protocol": "tcp", "port": "http"}),
            (TARGET, {"protocol": "udp", "port": 33000}),
            (TARGET, {"ttl": "1"}),
            (TARGET, {"ttl": 0}),
            (TARGET, {"ttl": 51}),
            (IPv4Address("0.0.0.0"), {}),
            (IPv6Address("2001:db8::1"), {}),
            ("192.0.2.1", {}),
        ):
            with pytest.raises(errors.MTRError):
                self.route.trace(self.fail, self.fail, target, **options)
        self.clock.run(5)
        assert [] == self.commands(b"send-probe")

    def test_no_local_address(self):
        """At least one local address must be given."""
        with pytest.raises(errors.MTRError):
            mtr.TraceRoute(mtr_binary_path="/usr/bin/mtr-packet")

    def test_not_spawned(self):
        """Tracing before mtr-packet was spawned raises `StateError`."""
        with pytest.raises(errors.StateError):
            mtr.TraceRoute(**LOCAL).trace(self.fail, self.fail, TARGET)


def test_milliseconds():
    """Milliseconds are rounded ints that keep their microseconds, copied and pickled too."""
    assert [(0, 499), (1, 500), (20, 20_499)] == [
        (int(rtt), rtt.microseconds) for rtt in map(Milliseconds, (499, 500, 20_499))
    ]
    for again in (copy.copy(Milliseconds(20_499)), pickle.loads(pickle.dumps(Milliseconds(20_499)))):
        assert (20, 20_499) == (again, again.microseconds)


def test_find_binary(monkeypatch, tmp_path):
    """The first executable file of that name in PATH, as an absolute path; False if there is none."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tool").write_text("")
    (tmp_path / "there" / "folder").mkdir(parents=True)
    (tmp_path / "there" / "tool").write_text("")
    (tmp_path / "there" / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "here:there")
    assert str(tmp_path / "there" / "tool") == utils.find_binary("tool")
    assert utils.find_binary("folder") is False
    assert utils.find_binary("other") is False


def test_parse_ip():
    """An address of either family, from anything whose str spells one; `SocketError` otherwise."""
    assert IPv4Address("192.0.2.1") == utils.parse_ip(" 192.0.2.1\n")
    assert IPv6Address("2001:db8::1") == utils.parse_ip(IPv6Address("2001:db8::1"))
    for wrong in ("", "192.0.2", "192.0.2.1/32", "example.net", b"192.0.2.1", None):
        with pytest.raises(errors.SocketError):
            utils.parse_ip(wrong)


def test_get_logger(capsys):
    """A logger writes each line once to stderr, from its level on, however often it is asked for."""
    for _ in range(2):
        log = logger.get_logger("tracerouted-test", level=logging.INFO)
    log.info("said")
    log.debug("unsaid")
    assert re.fullmatch(r"\S+ \S+ tracerouted-test \[INFO\] said\n", capsys.readouterr().err)


# --- the package's own programs ------------------------------------------------------------------------------

SDIST = "TWISTED_MTR_SDIST"


def fetched(folder):
    """The sdist of twisted-mtr 3.2.0: the file that $TWISTED_MTR_SDIST names, else by pip; skips without either."""
    if SDIST in os.environ:
        return Path(os.environ[SDIST])
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--retries", "0"]
    command += ["--timeout", "10", "--disable-pip-version-check", "-d", str(folder), "twisted-mtr==3.2.0"]
    parent = os.getppid()
    try:
        # Tests have no network; whoever started them may have.
        subprocess.run(
            command, check=True, capture_output=True, timeout=90, preexec_fn=lambda: namespace.enter(parent)
        )
    except (OSError, subprocess.SubprocessError):
        pytest.skip(f"pip cannot get twisted-mtr 3.2.0 from here; give its sdist in ${SDIST}")
    return next(Path(folder).glob("twisted*mtr-3.2.0.tar.gz"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Reads a file of the sdist of twisted-mtr 3.2.0."""
    with tarfile.open(fetched(tmp_path_factory.mktemp("sdist"))) as archive:
        yield lambda path: archive.extractfile(f"twisted_mtr-3.2.0/{path}").read().decode()


def adapted(source):
    """A program with its import line changed."""
    changed, count = re.subn(r"^from twisted_mtr import", "from tracerouted.twisted_mtr import", source, flags=re.M)
    assert count
    return changed


def run(lab, folder, *arguments):
    """Run a program of `folder` in the simulated internet, with this Python first in PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return lab.run([sys.executable, *arguments], cwd=folder, env={**os.environ, "PATH": path}, timeout=60)


def test_own_test_suite(package, lab, tmp_path):
    """The test suite of twisted-mtr 3.2.0 passes with only its import line changed."""
    (tmp_path / "suite.py").write_text(adapted(package("tests/test_twisted_mtr.py")))
    ended = run(lab, tmp_path, "-m", "unittest", "-v", "suite")
    assert ended.returncode == 0, ended.stderr
    assert "Ran 3 tests" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_own_example(package, lab, tmp_path):
    """The example of twisted-mtr 3.2.0's README runs with its import line and the addresses to fill in changed.

    It also says `target_ip` once where it means its variable `target_ipv4`, which no package can make run.
    """
    programs = re.findall(r"```python\n(.*?)```", package("README.md"), flags=re.S)
    source = adapted(next(program for program in programs if "reactor.run()" in program))
    target = lab.address("plain", "ipv4")
    for old, new in (
        ("10.11.22.33", "44.0.0.2"),
        ("1.1.1.1", target),
        ("trace_error, target_ip)", "trace_error, target_ipv4)"),
    ):
        assert old in source
        source = source.replace(old, new)
    (tmp_path / "example.py").write_text(source)
    ended = run(lab, tmp_path, "example.py")
    assert (0, "") == (ended.returncode, ended.stderr)
    first, *hops = ended.stdout.splitlines()
    assert f"Traceroute complete to {target} in 11 hops" == first
    expected = [hop.address for hop in lab.truth("plain", "ipv4", "icmp").ways[0]]
    assert expected == [line.split()[2] for line in hops]
