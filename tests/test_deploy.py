"""The files an operator runs the service with: Dockerfile, compose file, systemd unit, scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from ruamel.yaml import YAML

from tracerouted.cli import STOP_GRACE_S
from tracerouted.settings import Settings, variable

PROJECT = Path(__file__).resolve().parent.parent
DOCKERFILE = PROJECT / "Dockerfile"
COMPOSE = PROJECT / "docker-compose.yml"
UNIT = PROJECT / "deploy" / "tracerouted.service"

DRAIN_S = Settings().shutdown_s + STOP_GRACE_S


def program(name: str) -> str:
    """A program of this environment or of the system."""
    found = shutil.which(name, path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def compose() -> Any:
    """The service of the compose file."""
    return YAML(typ="safe").load(COMPOSE)["services"]["tracerouted"]


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The [Service] section: each directive with its values in order."""
    section: dict[str, list[str]] = {}
    inside = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            inside = line
        elif inside == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return section


@pytest.fixture(scope="module")
def image() -> dict[str, list[str]]:
    """The instructions of the Dockerfile's last stage, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    instructions: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "FROM":
            instructions = {}
        if name.isupper():
            instructions.setdefault(name, []).append(value)
    return instructions


def test_dockerfile_is_clean() -> None:
    """hadolint finds nothing to say."""
    assert run(program("hadolint"), DOCKERFILE) == ""


def test_compose_file_is_valid() -> None:
    """The compose file follows the compose specification."""
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_unit_is_hardened() -> None:
    """systemd's own judgement of the unit: an exposure of 2.0 at most, of 10."""
    said = run(program("systemd-analyze"), "security", "--offline=true", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for tracerouted\.service: ([0-9.]+)", said)

    assert exposure is not None
    assert float(exposure[1]) <= 2.0


def test_only_net_raw_is_given(compose: Any, unit: dict[str, list[str]]) -> None:
    """One capability, in a way that reaches mtr-packet: a file's one in Docker, an ambient one under systemd."""
    assert compose["cap_drop"] == ["ALL"]
    assert compose["cap_add"] == ["NET_RAW"]
    assert "security_opt" not in compose
    assert "privileged" not in compose
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == ["CAP_NET_RAW"]
    assert "PrivateUsers" not in unit


def test_nobody_is_root(image: dict[str, list[str]], unit: dict[str, list[str]]) -> None:
    """The image's user is a number, as Kubernetes' runAsNonRoot wants, and not 0; systemd makes one up."""
    (user,) = image["USER"]

    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    assert unit["DynamicUser"] == ["yes"]


def test_nothing_is_written(compose: Any, unit: dict[str, list[str]]) -> None:
    """The root file system is read-only everywhere; /tmp is private."""
    assert compose["read_only"] is True
    assert compose["tmpfs"][0].startswith("/tmp")
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["PrivateTmp"] == ["yes"]


def test_a_drain_is_waited_for(image: dict[str, list[str]], compose: Any, unit: dict[str, list[str]]) -> None:
    """Whoever stops the service sends SIGTERM and waits longer than a drain may take."""
    assert image["STOPSIGNAL"] == ["SIGTERM"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > DRAIN_S
    assert int(unit["TimeoutStopSec"][0]) > DRAIN_S


def test_image_serves_on_both_families(image: dict[str, list[str]]) -> None:
    """The image listens on every address of the container, on the port it exposes."""
    (text,) = re.findall(r"TRACEROUTED_LISTEN=(\S+)", " ".join(image["ENV"]))
    settings = Settings.load({}, {"TRACEROUTED_LISTEN": text})

    assert [address.host for address in settings.listen] == ["0.0.0.0", "::"]
    assert {str(address.port) for address in settings.listen} == set(image["EXPOSE"])


def test_image_checks_its_own_health(image: dict[str, list[str]], compose: Any) -> None:
    """The health check needs nothing but the package, and the compose file keeps it."""
    (check,) = image["HEALTHCHECK"]

    assert check.endswith('CMD ["tracerouted", "healthcheck"]')
    assert compose["healthcheck"]["test"] == ["CMD", "tracerouted", "healthcheck"]


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, UNIT], ids=lambda path: path.name)
def test_only_known_settings_are_named(path: Path) -> None:
    """Every TRACEROUTED_ variable these files name is a setting."""
    named = set(re.findall(r"TRACEROUTED_[A-Z_]+[A-Z]", path.read_text()))

    assert named <= {variable(attribute) for attribute in fields(Settings)}


@pytest.mark.parametrize("path", ["scripts/setup", ".ci/run", "deploy/image-test"])
def test_scripts_can_be_run(path: str) -> None:
    """The scripts are executable and free of syntax errors."""
    script = PROJECT / path

    assert os.access(script, os.X_OK)
    first, _, rest = script.read_text().partition("\n")
    if first == "#!/bin/sh":
        run("sh", "-n", script)
    else:
        assert first == "#!/usr/bin/env python3"
        compile(rest, path, "exec")


def test_setup_knows_its_words() -> None:
    """An unknown kind of set-up is refused before anything is installed."""
    done = subprocess.run([PROJECT / "scripts" / "setup", "everything"], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: write scripts/setup run, test, image or fuzz\n"
