"""The example programs, run as a reader would, in the simulated internet."""

import sys
import tomllib
from pathlib import Path

import pytest

from netsim.scenario import SCENARIOS

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(lab, name, *arguments, **options):
    """Run an example; (exit code, stdout, stderr)."""
    ended = lab.run([sys.executable, str(EXAMPLES / name), *arguments], **options)
    return ended.returncode, ended.stdout, ended.stderr


def addresses(lab, target, family="ipv4"):
    """The addresses of the true route, `*` where silent."""
    return [hop.address or "*" for hop in lab.truth(target, family, "icmp").ways[0]]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_trace(lab, family):
    """trace.py prints an answer per probe and hop, then how it ended."""
    code, out, err = run(lab, "trace.py", lab.address("silent-middle", family))
    assert (0, "") == (code, err)
    *hops, end = out.splitlines()
    assert "reached, 7 hops" == end.strip()
    expected = [(str(ttl), a) for ttl, a in enumerate(addresses(lab, "silent-middle", family), 1) if a != "*"]
    assert set(expected) == {tuple(line.split()[:2]) for line in hops}
    assert 3 * len(expected) == len(hops)


def test_trace_not_reached(lab):
    """trace.py exits with 1 when the target was not reached."""
    code, out, err = run(lab, "trace.py", lab.address("host-unreachable", "ipv4"))
    assert (1, "") == (code, err)
    assert "unreachable, 6 hops" == out.splitlines()[-1].strip()


def test_many(lab):
    """many.py traces 500 targets at once exactly, and says which were refused."""
    scenario = lab.load(tomllib.loads((SCENARIOS / "large" / "many_silent.toml").read_text()))
    names = [target.name for target in scenario.targets]
    targets = {lab.address(name, "ipv4"): name for name in names}
    code, out, err = run(lab, "many.py", input="\n".join([*targets, "10.0.0.1"]))
    assert 0 == code, err
    assert err.startswith("501 targets in ")
    found = dict(line.split(": ", 1) for line in out.splitlines())
    assert found.pop("10.0.0.1").startswith("refused: ")
    assert {a: f"reached: {' '.join(addresses(lab, name))}" for a, name in targets.items()} == found
    lab.unload(scenario.name)


def test_callbacks(lab):
    """callbacks.py prints the routes, and the failure of the one that has none."""
    plain, unreachable = lab.address("plain", "ipv4"), lab.address("host-unreachable", "ipv4")
    code, out, err = run(lab, "callbacks.py", "44.0.0.2", plain, unreachable)
    assert (0, "") == (code, err)
    assert f"{unreachable}: at hop 6: failed to send-probe to {unreachable}: no route to host" in out
    lines = out.splitlines()
    first = lines.index(f"{plain}: 11 hops") + 1
    assert addresses(lab, "plain") == [line.split()[1] for line in lines[first : first + 11]]
