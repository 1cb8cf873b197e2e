"""The benchmark harness itself: its rows run to their end, wrong answers don't count, and the documents say what the
kept run says."""

from __future__ import annotations

import cProfile
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import __main__ as program  # noqa: E402  # the harness is run from the checkout, it is not installed
from bench import profile, report, subjects  # noqa: E402
from bench.grounds import Chain, Here  # noqa: E402
from bench.plots import pictures  # noqa: E402
from bench.record import Record, RowRecord  # noqa: E402
from bench.routes import exact, judged  # noqa: E402
from bench.subjects import Subject, SubjectFailed  # noqa: E402
from bench.table import WIDTH, Figure, Plan, Runs, Target, in_turn, lines, peer_texts, row  # noqa: E402

needs_routers = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "mtr-packet"))),
    reason="a chain of routers needs root, util-linux, iproute2 and mtr-packet",
)


# --- rows and grounds ------------------------------------------------------------------------------------------

#: All rows, in groups that take about as long as each other; they wait more than they work, so they run side by side.
GROUPS = (
    ("many",),
    ("many-silent",),
    ("far", "far-silent", "one", "memory"),
    ("http", "capacity", "code", "growth"),
    ("streams", "honesty", "planning"),
)


@needs_routers
@pytest.mark.timeout(300)
def test_every_row_runs_to_its_end(tmp_path: Path) -> None:
    """With the smallest sizes each row gives figures, none breaks, and the record has them all."""
    running = []
    for place, names in enumerate(GROUPS):
        command = [sys.executable, "-m", "bench", "--tiny", "--out", f"{tmp_path}/{place}.json", *names]
        running.append(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    said = [process.communicate()[0] for process in running]
    assert [0] * len(GROUPS) == [process.returncode for process in running], "\n".join(said)
    records = [Record.load(path) for path in sorted(tmp_path.glob("*.json"))]
    done = {record.name: record for run in records for record in run.rows}
    assert set(row.rows) == set(done)
    for name, record in done.items():
        assert record.error is None
        assert record.figures, name
    assert all(run.tiny for run in records)


@needs_routers
def test_a_tiny_race_is_true() -> None:
    """Through three real routers, one silent, ours and the raw driver find every hop of every target."""
    with (
        Chain(3, frozenset({2})) as chain,
        Subject(chain, "library", target_probes_per_second=1000) as ours,
        Subject(chain, "raw") as raw,
    ):
        targets = chain.targets[:2]
        results = in_turn(
            {
                "ours": lambda: ours(do="trace", targets=targets, fields={"probes": 1}),
                "raw": lambda: raw(targets=targets, hops=4, window=8),
            },
            1,
        )
        assert ("44.3.8.1", None, "44.3.8.5", targets[0]) == chain.way(targets[0])
        for rounds in results.values():
            runs = judged(rounds, chain.way, targets)
            assert (2,) == runs.right
            assert runs.value > 0
        wrong = {targets[0]: ["44.3.8.1", "44.3.8.3", "44.3.8.5", targets[0]], targets[1]: []}
        assert 0 == exact(wrong, chain.way, targets)


@needs_routers
def test_the_chain_leaves_nothing_behind() -> None:
    """Every router's process, and with it its namespace, is gone when the chain is."""
    chain = Chain(1)
    with chain:
        pids = [holder.pid for holder in chain._holders]
        assert 3 == len(pids)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_subject_that_ends_is_broken() -> None:
    """A job that ends the subject raises, and the process is gone."""
    with Subject(Here(), "raw") as raw, pytest.raises(SubjectFailed, match="raw: it ended"):
        raw(nonsense=1)
    assert raw.process.poll() is not None


def test_a_subject_that_hangs_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that does not end is given up: the subject is killed."""
    with Subject(Here(), "client") as client:
        monkeypatch.setattr(subjects, "WITHIN_S", 0.2)
        with pytest.raises(SubjectFailed, match="client: it ended with -9"):
            client(do="ready", port=1, within_s=600)


def test_processor_time_of_a_process() -> None:
    """It is what the process itself says it has used."""
    before = time.process_time()
    assert before <= subjects.cpu_s(os.getpid()) <= time.process_time()


# --- judging ---------------------------------------------------------------------------------------------------


def test_exact_routes() -> None:
    """A route counts when every TTL up to the last answer agrees; a missing hop, or one too many, does not."""
    true = ("a", None, "t")
    for found, count in (
        (["a", None, "t"], 1),
        (["a", None, "t", None], 1),
        (["a", "b", "t"], 0),
        (["a", "t"], 0),
        (["a", None, "t", "t"], 0),
        ([], 0),
    ):
        assert count == exact({"t": found}, lambda _: true, ["t"])


def test_a_fast_wrong_answer_of_a_peer_does_not_count() -> None:
    """Its wrong rounds are left out of its median; without a right round there is no peer to be held against."""
    true = ("a", "t")
    rounds = [{"wall_s": 0.1, "routes": {"t": ["t"]}}, {"wall_s": 2.0, "routes": {"t": ["a", "t"]}}]
    assert 2.0 == judged(rounds, lambda _: true, ["t"]).counted
    ours = Runs([1.0, 1.0], [1, 1], 1)
    figure = Figure("f", "s", ours, {"peer": judged(rounds, lambda _: true, ["t"])}, "peer", Target(most=0.6))
    assert (0.5, "met") == (figure.ratio, figure.verdict)
    figure = Figure("f", "s", ours, {"peer": judged(rounds[:1], lambda _: true, ["t"])}, "peer", Target(most=0.6))
    assert (None, "no peer") == (figure.ratio, figure.verdict)
    assert ["peer 0/1 right"] == peer_texts(figure)


def test_ours_is_not_met_with_a_wrong_answer() -> None:
    """One wrong route in one round outweighs any speed."""
    assert "WRONG" == Figure("f", "s", Runs([1.0, 1.0], [5, 4], 5), target=Target(most=9)).verdict
    assert "met" == Figure("f", "s", Runs([1.0, 1.0], [5, 5], 5), target=Target(most=9)).verdict


def test_targets_of_figures() -> None:
    """A bound is on the ratio where one is meant, else on the value; without a bound there is no verdict."""
    value = Runs([9.0])
    assert "met" == Figure("f", "s", value, target=Target(most=9.0)).verdict
    assert "NOT MET" == Figure("f", "s", value, target=Target(most=8.9)).verdict
    assert "NOT MET" == Figure("f", "s", value, {"p": Runs([18.0])}, "p", Target(least=0.6)).verdict
    assert "met" == Figure("f", "s", value, {"p": Runs([12.0])}, "p", Target(least=0.6)).verdict
    assert "no peer" == Figure("f", "s", value, {}, "p", Target(least=0.6)).verdict
    assert "" == Figure("f", "s", value).verdict


def test_subjects_take_turns() -> None:
    """Rounds interleave: every subject once, then all again."""
    order: list[str] = []
    results = in_turn({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 2)
    assert ["a", "b", "a", "b"] == order
    assert {"a": [1, 3], "b": [2, 4]} == results


# --- the program -----------------------------------------------------------------------------------------------


def _slow(plan: Plan) -> Iterator[Figure]:
    """A row that misses its target."""
    yield Figure("slow", "s", Runs([2.0]), target=Target(most=1.0))


def _broken(plan: Plan) -> Iterator[Figure]:
    """A row that breaks half way."""
    yield Figure("before", "s", Runs([2.0]))
    raise SubjectFailed("library: it ended with 1")


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with these two rows alone, run by whom it likes."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in list(row.rows):
        monkeypatch.delitem(row.rows, name)
    monkeypatch.setitem(row.rows, "slow", _slow)
    monkeypatch.setitem(row.rows, "broken", _broken)


@pytest.mark.usefixtures("two_rows")
def test_a_missed_target_does_not_fail_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 0, and the table says so."""
    assert 0 == program.main(["--tiny", "--out", f"{tmp_path}/run.json", "slow"])
    assert "NOT MET" in capsys.readouterr().out


@pytest.mark.usefixtures("two_rows")
def test_a_broken_row_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1; the other row is still run, and what was measured before is kept."""
    assert 1 == program.main(["--tiny", "--out", f"{tmp_path}/run.json"])
    assert "BROKEN: SubjectFailed: library: it ended with 1" in capsys.readouterr().out
    slow, broken = Record.load(tmp_path / "run.json").rows
    assert (None, "NOT MET") == (slow.error, slow.figures[0].verdict)
    assert ("SubjectFailed: library: it ended with 1", "before") == (broken.error, broken.figures[0].name)


@pytest.mark.usefixtures("two_rows")
def test_which_rows_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole name is that row alone; the beginning of names is all of them."""
    monkeypatch.setitem(row.rows, "slow-silent", _slow)
    for name, rows in (("slow", ["slow"]), ("slo", ["slow", "slow-silent"])):
        assert 0 == program.main(["--tiny", "--out", f"{tmp_path}/run.json", name])
        assert rows == [done.name for done in Record.load(tmp_path / "run.json").rows]


@pytest.mark.usefixtures("two_rows")
def test_a_row_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped name runs nothing, says which there are, and is an error."""
    assert 2 == program.main(["fast"])
    assert ["slow", "broken"] == [text.split()[0] for text in capsys.readouterr().out.splitlines()]


def test_the_table_fits() -> None:
    """No line is wider than a terminal of 118 columns, whatever the names and numbers are."""
    runs = Runs([123456.0], [1], 500)
    peers = {"a peer with a rather long name indeed": runs, "scamper": Runs([0.000123])}
    figure = Figure("what " * 20, "events/s", Runs([1e6]), peers, "scamper", Target(least=60_000), note="note " * 50)
    assert WIDTH >= max(len(text) for text in lines(figure))
    assert WIDTH >= max(len(text) for text in program.heading().splitlines())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every round, peer, bound and point of a curve comes back; a file of another schema is refused."""
    held = Figure("f", "s", Runs([1.0, 2.0], [3, 3], 3), {"p": Runs([2.0])}, "p", Target(most=1.0), "note", "c", 10)
    done = RowRecord("r", "words", 1.5, (0.5, 1.0), None, (held, Figure("g", "s", Runs([0.0]))))
    record = Record().with_rows((done,), 2.0)
    record.store(tmp_path / "run.json")
    assert record == Record.load(tmp_path / "run.json")
    (tmp_path / "old.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema 1"):
        Record.load(tmp_path / "old.json")


def test_profiles_are_summed_up(tmp_path: Path) -> None:
    """Over all processes of a kind, the functions are listed with their calls and times."""
    for number in range(2):
        profiled = cProfile.Profile()
        profiled.runcall(_slow_to_find)
        profiled.dump_stats(tmp_path / f"daemon-{number}.prof")
    text = profile.summary(tmp_path)
    assert text.startswith("daemon: ")
    assert "processes: 2" in text
    assert [2, 2] == [int(line.split()[0]) for line in text.splitlines() if "_slow_to_find" in line]


def _slow_to_find() -> int:
    return sum(range(1000))


def test_only_a_whole_run_goes_into_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny run, and one in which rows are missing or broke, is refused and changes nothing."""
    before = report.DOCUMENT.read_bytes()
    for record in (Record(tiny=True), Record()):
        record.store(tmp_path / "run.json")
        assert 1 == report.main([f"{tmp_path}/run.json"])
        assert "not a whole run" in capsys.readouterr().out
    assert before == report.DOCUMENT.read_bytes()


# --- the documents ---------------------------------------------------------------------------------------------


def test_the_document_says_what_the_run_says() -> None:
    """docs/performance.md and its plots are what docs/performance/run.json gives: a whole run, of all rows."""
    record = Record.load(report.RUN)
    text = report.DOCUMENT.read_text()
    assert report.rendered(text, record) == text
    assert set(report.BLOCKS) == {found[2] for found in report.BLOCK.finditer(text)}
    for name, picture in pictures(record).items():
        assert picture == (report.FOLDER / name).read_text()
        assert f"performance/{name}" in text
    assert list(row.rows) == [done.name for done in record.rows]
    assert not record.tiny
    assert not [done.name for done in record.rows if done.error]
