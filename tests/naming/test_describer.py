"""The two halves of a description put together."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tracerouted.model import Asn
from tracerouted.naming.describer import Description, Directory

ADDRESS = "192.0.2.1"


class DirectoryTests(SynchronousTestCase):
    """`Directory` over sources answered by hand."""

    def setUp(self):
        self.asked = []
        self.pending = {"name": Deferred(), "asn": Deferred()}
        self.directory = Directory(
            lambda address: self.ask("name", address), lambda address: self.ask("asn", address)
        )

    def ask(self, half, address):
        self.asked.append((half, address))
        return self.pending[half]

    def test_only_what_is_wanted_is_asked(self):
        """An unwanted half asks nobody, and wanting nothing gives an empty description at once."""
        assert self.successResultOf(self.directory.describe(ADDRESS, False, False)) == Description()
        assert self.asked == []
        d = self.directory.describe(ADDRESS, True, False)
        self.pending["name"].callback("r1.example.net")
        assert self.successResultOf(d) == Description("r1.example.net", None)
        assert self.asked == [("name", ADDRESS)]

    def test_both_halves(self):
        """A description waits for both halves, in whichever order they come."""
        d = self.directory.describe(ADDRESS, True, True)
        self.pending["asn"].callback(Asn(64500, "EXAMPLE"))
        self.assertNoResult(d)
        self.pending["name"].callback(None)
        assert self.successResultOf(d) == Description(None, Asn(64500, "EXAMPLE"))

    def test_no_source(self):
        """Without a source a wanted half is None."""
        directory = Directory(hostname=lambda address: succeed("r1.example.net"))
        assert self.successResultOf(directory.describe(ADDRESS, True, True)) == Description("r1.example.net", None)
        assert self.successResultOf(Directory().describe(ADDRESS, True, True)) == Description()

    def test_cancelling(self):
        """Cancelling takes back both questions."""
        d = self.directory.describe(ADDRESS, True, True)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        assert [half.called for half in self.pending.values()] == [True, True]
