"""The inputs that fuzzing has kept: each still breaks nothing. `make fuzz` looks for new ones."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fuzz import CORPUS, TARGETS  # noqa: E402  # it is run from the checkout, it is not installed

from tracerouted.http import traces  # noqa: E402
from tracerouted.mtrpacket import codec  # noqa: E402
from tracerouted.naming import hostname  # noqa: E402


def kept(name: str) -> Iterator[Path]:
    """The inputs of a target."""
    yield from sorted((CORPUS / name).iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_breaks_anything(name: str) -> None:
    """Every input of the corpus keeps its target's promises."""
    run = importlib.import_module(f"fuzz.{name}").run
    inputs = list(kept(name))
    assert len(inputs) >= 10
    for path in inputs:
        try:
            run(path.read_bytes())
        except Exception as broken:
            raise AssertionError(f"{path.relative_to(ROOT)} breaks the target {name}") from broken


def test_the_corpus_is_small() -> None:
    """What is kept stays cheap to keep and to run."""
    files = [path for name in TARGETS for path in kept(name)]
    assert len(files) <= 250
    assert sum(path.stat().st_size for path in files) <= 500_000


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "faulty"),
    [
        ("replies", codec, "MAX_TEXT", 121),
        ("commands", codec.Prepared, "line", lambda self, token, ttl, port: b"%d ttl %d\n" % (token, ttl)),
        ("requests", hostname, "_NUMERIC_LABEL", re.compile("never")),
        ("edge", traces, "_read_limit", lambda value: {}[value]),
    ],
    ids=TARGETS,
)
def test_targets_notice_faults(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: Any, attribute: str, faulty: Any
) -> None:
    """With a fault in what a target is about, some kept input breaks its promises."""
    run = importlib.import_module(f"fuzz.{name}").run
    monkeypatch.setattr(owner, attribute, faulty)
    assert any(breaks(run, path) for path in kept(name))


def breaks(run: Callable[[bytes], None], path: Path) -> bool:
    """Whether an input breaks a promise."""
    try:
        run(path.read_bytes())
    except Exception:
        return True
    return False
