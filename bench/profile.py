"""Where the time of our own processes goes: what they left in a folder (`subjects.PROFILE`) as a readable table.

cProfile measures its own cost too, most of all in small functions that are called often: believe the order, not the
times. What a running daemon does without that is for py-spy; docs/performance.md says how.
"""

from __future__ import annotations

import pstats
from collections.abc import Iterator
from pathlib import Path

TOP = 30
ROOT = Path(__file__).parents[1]
#: Starting up and waiting are not what is looked for.
_ELSE = (
    *("<frozen", "importlib", "marshal.loads", "builtins.compile", "builtins.exec", "_imp.", "io.open_code"),
    *("builtins.__build_class__", "builtins.__import__", "posix.listdir", "/typing.py", "/re/", "<module>"),
    "<method 'poll' of",
)


def summary(folder: Path) -> str:
    """The functions with most time of their own, and those with most below them, over all processes of a kind."""
    parts = []
    kinds = sorted({path.name.rpartition("-")[0] for path in folder.glob("*.prof")})
    for kind in kinds:
        files = sorted(str(path) for path in folder.glob(f"{kind}-*.prof"))
        stats = pstats.Stats(*files)
        parts.append(f"{kind}: {stats.total_tt:.2f} s in all, processes: {len(files)}\n")  # type: ignore[attr-defined]
        for words, place in (("own time", 2), ("own time and all below", 3)):
            parts.append("\n".join(_top(stats, words, place)) + "\n")
    return "\n".join(parts) if parts else "no process of ours ran: nothing was profiled\n"


def _top(stats: pstats.Stats, words: str, place: int) -> Iterator[str]:
    yield f"by {words}"
    yield f"{'calls':>10} {'own s':>8} {'below s':>8}  function"
    entries = stats.stats.items()  # type: ignore[attr-defined]
    kept = [(where, entry) for where, entry in entries if not any(word in _named(where) for word in _ELSE)]
    for where, entry in sorted(kept, key=lambda item: -item[1][place])[:TOP]:
        yield f"{entry[1]:>10,} {entry[2]:>8.3f} {entry[3]:>8.3f}  {_named(where)}"


def _named(where: tuple[str, int, str]) -> str:
    path, number, function = where
    if path == "~":
        return function
    short = path.rpartition("/site-packages/")[2].removeprefix(f"{ROOT}/").removeprefix("service/")
    return f"{short}:{number} {function}"
