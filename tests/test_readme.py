"""The README keeps its word: its commands run as printed, its settings are the settings, its links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import fields

from tracerouted.settings import Settings, variable

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)\n(.*)$", README, re.MULTILINE)


def test_every_setting_is_in_the_table() -> None:
    """The table lists each setting with its default and meaning, and nothing else."""
    table = re.findall(r"^\| `(TRACEROUTED_\w+)` \| (.+?) \| (.+) \|$", README, re.MULTILINE)
    settings = [
        (variable(a), f"`{a.metadata['default']}`" if a.metadata["default"] else "none", a.metadata["help"])
        for a in fields(Settings)
    ]
    assert settings == table


def headings(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere() -> None:
    """Every link into the repository names a file that is there, and a heading in it."""
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]:
        for link, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name} links to {link}"
            assert not heading or heading in headings(target), f"{page.name} links to {link}#{heading}"


def test_the_program_is_one() -> None:
    """The library's example is Python that imports what exists."""
    (program,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    imports = [node for node in ast.parse(program).body if isinstance(node, ast.Import | ast.ImportFrom)]
    done = subprocess.run([sys.executable, "-c", "\n".join(map(ast.unparse, imports))], check=False)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def demo(internet: object) -> Iterator[str]:
    """The address of a running demonstration."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = re.search(r"http://[0-9.]+:[0-9]+", process.stdout.readline())
    assert found
    yield found[0]
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.parametrize(("command", "first_line"), COMMANDS, ids=range(len(COMMANDS)))
def test_commands_do_what_is_shown(demo: str, command: str, first_line: str) -> None:
    """Pasted into a shell, a command begins to answer as the README shows."""
    command = command.replace("http://127.0.0.1:8080", demo).replace(
        ".venv/bin/tracerouted", f"{sys.executable} -m tracerouted"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "") or "-N" in command
    beginning = re.split(r"[0-9a-f]{4}|\"id\"", first_line)[0]
    assert done.stdout.startswith(beginning.replace("`", ""))
    assert done.stdout.strip()


def test_there_are_commands() -> None:
    """The README shows at least polling, streaming and text."""
    shown = " ".join(command for command, _ in COMMANDS)
    assert all(word in shown for word in ("text/plain", "text/event-stream", "Prefer: wait", "tracerouted trace"))
