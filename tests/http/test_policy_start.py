"""From settings and the command line to the policy of a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.task import Clock

from tracerouted import cli
from tracerouted.app import http_limits, policy
from tracerouted.http import Policy
from tracerouted.http.keys import parse_keys
from tracerouted.naming.policy import parse_networks
from tracerouted.settings import SettingError, Settings

BIN = Path(sys.executable).parent / "tracerouted"


def load(**variables: str) -> Settings:
    return Settings.load({}, {f"TRACEROUTED_{name}": text for name, text in variables.items()})


def test_nothing_set() -> None:
    """By default everybody may use the service, as often as they like, from no other origin."""
    assert Policy() == policy(Settings(), Clock())


def test_everything_set(tmp_path: Path) -> None:
    """Each setting is in the policy."""
    file = tmp_path / "keys"
    file.write_text(f"alice {sha256(b'secret').hexdigest()}\n")
    made = policy(
        load(
            API_KEYS_FILE=str(file),
            TRUSTED_PROXIES="10.0.0.0/8",
            CREATE_PER_MINUTE="7",
            CORS_ORIGINS="https://lg.example.net",
        ),
        Clock(),
    )
    assert made.keys is not None
    assert "alice" == made.keys.owner(b"Bearer secret")
    assert parse_networks("10.0.0.0/8") == made.trusted_proxies
    assert made.quota is not None
    assert 7 == made.quota.per_minute
    assert frozenset({b"https://lg.example.net"}) == made.origins.listed


def test_the_limits_of_time() -> None:
    """Idle connections and heartbeats are settings."""
    limits = http_limits(load(KEEP_ALIVE_S="5", HEARTBEAT_S="2.5"))
    assert (5, 2.5) == (limits.keep_alive_s, limits.heartbeat_s)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("# keys\nalice secret\n"), "line 2 is not a name"),
        (Path.mkdir, "not a regular file"),
    ],
)
def test_an_unusable_file(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """A keys file that cannot be used is an error of its setting, which says why and shows nothing of it."""
    make(tmp_path / "keys")
    with pytest.raises(SettingError) as wrong:
        policy(load(API_KEYS_FILE=str(tmp_path / "keys")), Clock())
    assert str(wrong.value).startswith(f"TRACEROUTED_API_KEYS_FILE='{tmp_path}/keys': ")
    assert why in str(wrong.value)
    assert "secret" not in str(wrong.value)


def test_no_start_without_the_keys(tmp_path: Path) -> None:
    """A service that cannot read its keys exits with 1 and one line, rather than serve everybody or nobody."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TRACEROUTED_")}
    done = subprocess.run(
        [BIN, "serve", "--listen", "127.0.0.1:0", "--api-keys-file", str(tmp_path / "none")],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    errors = [line["message"] for line in lines if line["level"] == "error"]
    assert (1, 1) == (done.returncode, len(errors))
    assert "TRACEROUTED_API_KEYS_FILE" in errors[0]
    assert "Traceback" not in done.stderr


def test_key_new() -> None:
    """`key new` prints a key and the line that lets it in; the next time it is another."""
    secrets = set()
    for _ in range(2):
        done = CliRunner().invoke(cli.commands, ["key", "new", "alice"])
        key, line = (text.split(": ", 1)[1].strip() for text in done.output.splitlines())
        assert (("alice", sha256(key.encode()).digest()),) == parse_keys(line.encode())
        assert 0 == done.exit_code
        secrets.add(key)
    assert 2 == len(secrets)


@pytest.mark.parametrize(("arguments", "words"), [(["new", "a b"], "a name has"), (["new"], "NAME"), ([], "command")])
def test_key_new_wrong(arguments: list[str], words: str) -> None:
    """What is no name, or nothing, is a mistake in the command line."""
    done = CliRunner().invoke(cli.commands, ["key", *arguments])
    assert 2 == done.exit_code
    assert words in done.output
