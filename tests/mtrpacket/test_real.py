"""The real mtr-packet on the loopback, and the scripted fake as a real child."""

import os
import shutil
import signal
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest, TestCase

from fakes import Recorder, install_fake
from tracerouted.model import Family, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.mtrpacket import Limits, Pace, Supervisor, find_binary
from tracerouted.mtrpacket.selftest import LOOPBACK
from tracerouted.probing.prober import ProbeKind

DIED = Reply(ReplyKind.RETRY, error=RetryReason.DIED)
#: Short, so that a hanging child is noticed soon.
HASTY = Limits(tick_s=0.02, beat_s=0.05, answer_s=0.3, grace_s=0.3)


def loopback(family, protocol, timeout_s=1):
    """Probes to a port of this host that is closed."""
    address = LOOPBACK[family]
    return ProbeKind(protocol, address, address, None if protocol is Protocol.ICMP else 9, 64, 0, timeout_s)


class Waiting(Recorder):
    """A listener that can be waited for."""

    def __init__(self):
        super().__init__()
        self.waiters = []

    def until(self, condition):
        """Fires once `condition()` holds; looked at whenever anything is heard."""
        done = Deferred()
        self.waiters.append((condition, done))
        self.look()
        return done

    def look(self):
        for waiter in list(self.waiters):
            condition, done = waiter
            if condition():
                self.waiters.remove(waiter)
                done.callback(None)

    def on_turn(self, prober):
        super().on_turn(prober)
        self.look()

    def on_alive(self, prober, asked_at):
        super().on_alive(prober, asked_at)
        self.look()


class ChildCase(TestCase):
    """Probers on the real reactor, all stopped at the end."""

    timeout = 30

    def prober(self, path=None, family=Family.IPV4, **options):
        """A prober with a listener one can wait for."""
        listener = Waiting()
        prober = Supervisor(family, reactor, path=path, listener=listener, **options)
        self.addCleanup(prober.stop)
        return prober, listener


class RealMtrPacketTests(ChildCase):
    """Debian's or upstream's mtr-packet, with raw sockets, on this host's loopback."""

    def setUp(self):
        try:
            self.path = find_binary()
        except OSError as error:
            raise SkipTest(str(error)) from error

    async def started(self, family=Family.IPV4, **options):
        """A ready prober; skips the test where the real one cannot trace."""
        prober, listener = self.prober(self.path, family, **options)
        await prober.start()
        if prober.capabilities is None:
            raise SkipTest(prober.unready_reason)
        return prober, listener

    async def answers_on_loopback(self, family):
        prober, listener = await self.started(family)
        for protocol in (Protocol.ICMP, Protocol.UDP, Protocol.TCP):
            prepared = prober.prepare(loopback(family, protocol))
            for number in range(10):
                prober.send(prepared, 1 + number, None, (protocol, number))
        await listener.until(lambda: len(listener.replies) == 30)
        replies = {(reply.kind, reply.address, reply.error) for reply in listener.by_ticket().values()}
        assert {(ReplyKind.REPLY, LOOPBACK[family], None)} == replies
        for _, reply, sent_at, now in listener.replies:
            assert 0 <= reply.rtt_us <= (now - sent_at) * 1000000.0 + 1000
        assert {name: prober.counters[name] for name in ("restarts", "died")} == {"restarts": 0, "died": 0}

    async def test_ipv4(self):
        """ICMP, UDP and TCP probes to 127.0.0.1 are answered by it, each once, with sane RTTs."""
        await self.answers_on_loopback(Family.IPV4)

    async def test_ipv6(self):
        """ICMP, UDP and TCP probes to ::1 are answered by it, each once, with sane RTTs."""
        await self.answers_on_loopback(Family.IPV6)

    async def test_constant_flow(self):
        """UDP probes from a chosen source port are answered wherever the self-test says so."""
        for family in Family:
            prober, listener = await self.started(family)
            if prober.capabilities.constant_flow_udp:
                prober.send(prober.prepare(loopback(family, Protocol.UDP)), 5, 2000, "t")
                await listener.until(lambda listener=listener: listener.replies)
                assert listener.by_ticket()["t"].kind == ReplyKind.REPLY

    async def test_descriptors_are_limited(self):
        """The child may open 1024 files at most, soft and hard, as /proc tells."""
        prober, _ = await self.started()
        with open(f"/proc/{prober.pid}/limits") as limits:
            (line,) = [line for line in limits if line.startswith("Max open files")]
        assert all(0 < int(limit) <= 1024 for limit in line.split()[3:5]), line

    async def test_environment_is_clean(self):
        """The child inherits nothing of our environment."""
        prober, _ = await self.started()
        with open(f"/proc/{prober.pid}/environ", "rb") as environment:
            assert environment.read() == b"LC_ALL=C\x00"

    async def test_proof_of_life(self):
        """A confirmed process has delivered what was answered before."""
        prober, listener = await self.started()
        prober.send(prober.prepare(loopback(Family.IPV4, Protocol.ICMP)), 5, None, "t")
        asked = reactor.seconds()
        prober.confirm()
        await listener.until(lambda: listener.alive)
        assert listener.alive[0] >= asked
        assert "t" in listener.by_ticket()

    async def test_every_probe_survives_a_kill(self):
        """SIGKILL with hundreds of probes under way: each has one reply, and a new process is ready."""
        prober, listener = await self.started()
        prepared = prober.prepare(loopback(Family.IPV4, Protocol.ICMP))
        old = prober.pid
        for ticket in range(200):
            prober.send(prepared, 5, None, ticket)
        await listener.until(lambda: len(listener.replies) == 200)
        os.kill(old, signal.SIGSTOP)  # so that nothing more is answered before it dies
        for ticket in range(200, 400):
            prober.send(prepared, 5, None, ticket)
        os.kill(old, signal.SIGKILL)
        await listener.until(lambda: len(listener.replies) == 400 and prober.capabilities is not None)
        replies = listener.by_ticket()
        assert {replies[ticket].kind for ticket in range(200)} == {ReplyKind.REPLY}
        assert {replies[ticket] for ticket in range(200, 400)} == {DIED}
        assert old != prober.pid
        prober.send(prober.prepare(loopback(Family.IPV4, Protocol.ICMP)), 5, None, "after")
        await listener.until(lambda: len(listener.replies) == 401)
        assert listener.by_ticket()["after"].kind == ReplyKind.REPLY

    async def test_a_stopped_process_is_replaced(self):
        """SIGSTOP is noticed by the watchdog: killed, reaped, replaced; its probes come back once."""
        prober, listener = await self.started(limits=HASTY)
        old = prober.pid
        os.kill(old, signal.SIGSTOP)
        prepared = prober.prepare(loopback(Family.IPV4, Protocol.UDP))
        for ticket in range(20):
            prober.send(prepared, 5, None, ticket)
        await listener.until(lambda: prober.counters["restarts"] and prober.capabilities is not None)
        assert {DIED} == set(listener.by_ticket().values())
        assert not os.path.exists(f"/proc/{old}")
        assert prober.counters["watchdog_kills"] == 1

    async def test_stopping_leaves_no_child(self):
        """After `stop` the child is gone and reaped."""
        prober, _ = await self.started()
        pid = prober.pid
        await prober.stop()
        assert not os.path.exists(f"/proc/{pid}")


class ScriptedChildTests(ChildCase):
    """`install_fake`'s executable as a real child of the real reactor."""

    def fake(self, **settings):
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        return install_fake(directory, **settings)

    async def trace(self, prober, listener, ttls=(1, 3, 4)):
        """One probe per TTL; the addresses that answered."""
        prepared = prober.prepare(ProbeKind(Protocol.ICMP, "192.0.2.200", "198.51.100.7", None, 64, 0, 1))
        for ttl in ttls:
            prober.send(prepared, ttl, None, ttl)
        await listener.until(lambda: len(listener.replies) == len(ttls))
        return [listener.by_ticket()[ttl].address for ttl in ttls]

    async def test_a_line_of_routers(self):
        """The imagined path is seen hop by hop, even in pieces of three bytes between garbage."""
        prober, listener = self.prober(self.fake(chunk=3, garbage_at_read=2))
        await prober.start()
        assert prober.unready_reason is None
        assert await self.trace(prober, listener) == ["192.0.2.1", "192.0.2.3", "192.0.2.200"]

    async def test_a_flood(self):
        """Two megabytes of nonsense are read and dropped, and tracing goes on."""
        prober, listener = self.prober(self.fake(flood_at_read=2))
        await prober.start()
        assert await self.trace(prober, listener) == ["192.0.2.1", "192.0.2.3", "192.0.2.200"]
        assert prober.counters["unknown_words"] > 10000
        assert prober.counters["oversized_lines"] == 1

    async def test_last_words(self):
        """What the child says on stderr before it exits is the reason."""
        prober, _ = self.prober(self.fake(exit_at_spawn=3, stderr="no sockets for you\n"))
        await prober.start()
        assert prober.unready_reason == "it exited with 3: no sockets for you"

    async def test_a_child_that_reads_nothing(self):
        """A child deaf from the start is killed by the watchdog, again and again."""
        prober, listener = self.prober(self.fake(deaf=True), limits=HASTY)
        prober.start()
        await listener.until(lambda: True)
        done = Deferred()
        reactor.callLater(1.0, done.callback, None)
        await done
        assert prober.capabilities is None
        assert prober.counters["watchdog_kills"] >= 1

    async def test_a_file_that_is_no_program(self):
        """A file that cannot be executed leaves the family unready, with words."""
        path = self.fake()
        os.chmod(path, 0o644)
        prober, _ = self.prober(path, pace=Pace(failed_test_s=60))
        await prober.start()
        assert "mtr-packet cannot be started" in prober.unready_reason

    async def test_two_families_side_by_side(self):
        """One family without a loopback does not keep the other from tracing."""
        four, listener = self.prober(self.fake())
        six, _ = self.prober(self.fake(no_loopback=True), Family.IPV6)
        await gatherResults([four.start(), six.start()])
        assert four.unready_reason is None
        assert "cannot probe ::1" in six.unready_reason
        assert await self.trace(four, listener, ttls=(1,)) == ["192.0.2.1"]
