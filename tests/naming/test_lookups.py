"""Look-ups under way: bounds, sharing, deadlines, and a clean stop."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tracerouted.naming.lookups import DeadlinePassed, LookUps, QueueFull


class LookUpsTests(SynchronousTestCase):
    """`LookUps` over a look-up that tests answer by hand."""

    def setUp(self):
        self.clock = Clock()
        self.begun = []

    def lookups(self, concurrent=2, waiting=3, deadline=5.0):
        return LookUps(self.clock, self.begin, concurrent, waiting, deadline)

    def begin(self, key):
        d = Deferred()
        self.begun.append((key, d))
        return d

    def keys(self):
        return [key for key, _ in self.begun]

    def test_result(self):
        """The asker gets the result, and no timer is left."""
        d = self.lookups().ask("a")
        self.assertNoResult(d)
        self.begun[0][1].callback("x")
        assert self.successResultOf(d) == "x"
        assert self.clock.getDelayedCalls() == []

    def test_failure(self):
        """A look-up's failure reaches every asker as it is."""
        lookups = self.lookups()
        askers = [lookups.ask("a"), lookups.ask("a")]
        self.begun[0][1].errback(KeyError("why"))
        for d in askers:
            self.failureResultOf(d, KeyError)

    def test_a_look_up_that_raises(self):
        """A look-up that raises at once is a failure of its asker, and frees its place."""
        lookups = LookUps(self.clock, lambda key: 1 / 0, 1, 0, 5.0)
        self.failureResultOf(lookups.ask("a"), ZeroDivisionError)
        self.failureResultOf(lookups.ask("b"), ZeroDivisionError)

    def test_bounds(self):
        """At most `concurrent` begin, at most `waiting` more wait in order, and the next is refused at once."""
        lookups = self.lookups()
        askers = [lookups.ask(key) for key in "abcde"]
        assert self.keys() == ["a", "b"]
        self.failureResultOf(lookups.ask("f"), QueueFull)
        self.begun[1][1].callback("B")
        assert self.keys() == ["a", "b", "c"]
        self.begun[0][1].callback("A")
        assert self.keys() == ["a", "b", "c", "d"]
        assert [self.successResultOf(d) for d in askers[:2]] == ["A", "B"]
        lookups.stop()
        for d in askers[2:]:
            self.failureResultOf(d, CancelledError)

    def test_shared(self):
        """Those who ask the same thing, under way or in the queue, share one look-up and take no place."""
        lookups = self.lookups(concurrent=1, waiting=1)
        askers = [lookups.ask(key) for key in "aabbab"]
        assert self.keys() == ["a"]
        self.begun[0][1].callback("A")
        self.begun[1][1].callback("B")
        assert self.keys() == ["a", "b"]
        assert [self.successResultOf(d) for d in askers] == ["A", "A", "B", "B", "A", "B"]

    def test_deadline_under_way(self):
        """An asker hears after its own deadline that the look-up has begun without a result; the place stays taken
        until the look-up returns."""
        lookups = self.lookups(concurrent=1)
        d = lookups.ask("a")
        self.clock.advance(3)
        later = lookups.ask("a")
        other = lookups.ask("b")
        self.clock.advance(2)
        assert self.failureResultOf(d, DeadlinePassed).value.begun
        self.assertNoResult(later)
        assert self.keys() == ["a"]
        self.begun[0][1].callback("late")
        assert self.successResultOf(later) == "late"
        self.begun[1][1].callback("B")
        assert self.successResultOf(other) == "B"

    def test_joining_what_hangs(self):
        """Asking again for what hangs takes no further place."""
        lookups = self.lookups(concurrent=2)
        for _ in range(10):
            self.failureResultOf(self.after_deadline(lookups.ask("a")), DeadlinePassed)
        assert self.keys() == ["a"]
        d = lookups.ask("b")
        self.begun[1][1].callback("B")
        assert self.successResultOf(d) == "B"

    def after_deadline(self, d):
        self.clock.advance(5)
        return d

    def test_deadline_in_the_queue(self):
        """What was given up in the queue never begins, and its asker hears that it had not begun."""
        lookups = self.lookups(concurrent=1)
        hanging, queued = lookups.ask("a"), lookups.ask("b")
        self.clock.advance(5)
        self.failureResultOf(hanging, DeadlinePassed)
        assert not self.failureResultOf(queued, DeadlinePassed).value.begun
        self.begun[0][1].callback("late")
        assert self.keys() == ["a"]

    def test_giving_up_frees_the_queue(self):
        """A cancelled question in the queue makes room; one with another asker stays."""
        lookups = self.lookups(concurrent=1, waiting=2)
        running, lone, one, two = (lookups.ask(key) for key in "abcc")
        lone.cancel()
        one.cancel()
        self.failureResultOf(lone, CancelledError)
        self.failureResultOf(one, CancelledError)
        room = lookups.ask("d")
        for name in "acd":
            self.begun[-1][1].callback(name.upper())
        assert self.keys() == ["a", "c", "d"]
        assert [self.successResultOf(d) for d in (running, two, room)] == ["A", "C", "D"]

    def test_a_long_queue_of_immediate_results(self):
        """A queue of any length drains without recursion when results are there at once."""
        gate = Deferred()
        lookups = LookUps(self.clock, lambda key: gate if key == 0 else fail(KeyError(key)), 1, 5000, 5.0)
        askers = [lookups.ask(key) for key in range(5001)]
        gate.callback("open")
        assert self.successResultOf(askers[0]) == "open"
        for d in askers[1:]:
            self.failureResultOf(d, KeyError)

    def test_asking_from_a_callback(self):
        """An asker may ask again from its own callback, the same key included."""
        lookups = LookUps(self.clock, lambda key: succeed(key.upper()), 1, 0, 5.0)
        d = lookups.ask("a").addCallback(lambda first: lookups.ask("a").addCallback(lambda second: first + second))
        assert self.successResultOf(d) == "AA"

    def test_stop(self):
        """Stopping cancels what is under way and queued, leaves no timer, and what returns later disturbs nobody."""
        lookups = self.lookups(concurrent=1)
        askers = [lookups.ask(key) for key in "aab"]
        lookups.stop()
        for d in askers:
            self.failureResultOf(d, CancelledError)
        assert self.clock.getDelayedCalls() == []
        self.begun[0][1].callback("late")
        assert self.keys() == ["a"]
        self.failureResultOf(lookups.ask("c"), CancelledError)
        lookups.stop()
