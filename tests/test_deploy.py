"""The files an operator runs the service with: Dockerfile, compose file, manifests, systemd unit, scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from ruamel.yaml import YAML

from tracerouted.cli import STOP_GRACE_S
from tracerouted.naming.policy import TargetPolicy
from tracerouted.settings import Settings, variable

PROJECT = Path(__file__).resolve().parent.parent
DOCKERFILE = PROJECT / "Dockerfile"
COMPOSE = PROJECT / "docker-compose.yml"
UNIT = PROJECT / "deploy" / "tracerouted.service"
MANIFESTS = PROJECT / "deploy" / "kubernetes"
CONTRACT = PROJECT / "service" / "tracerouted" / "http" / "openapi.yaml"
CONFIGURATION = {".conf", ".json", ".service", ".yaml", ".yml"}
DEPLOYED = [DOCKERFILE, COMPOSE, *(path for path in (PROJECT / "deploy").rglob("*") if path.suffix in CONFIGURATION)]

DRAIN_S = Settings().shutdown_s + STOP_GRACE_S
AT_REST_BYTES = 60e6  # at most, both mtr-packet processes included; deploy/image-test measures it


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


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.fixture(scope="module")
def compose() -> Any:
    """The service of the compose file."""
    return load(COMPOSE)["services"]["tracerouted"]


@pytest.fixture(scope="module")
def kustomization() -> Any:
    """What is applied to a cluster."""
    return load(MANIFESTS / "kustomization.yaml")


@pytest.fixture(scope="module")
def manifests(kustomization: Any) -> dict[str, Any]:
    """What is made in the cluster, by kind."""
    listed = [load(MANIFESTS / name) for name in kustomization["resources"]]
    return {manifest["kind"]: manifest for manifest in listed}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> Any:
    """The specification of the pod."""
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    """The pod's one container."""
    (only,) = pod["containers"]
    return only


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


def test_unit_is_understood(tmp_path: Path) -> None:
    """systemd knows every directive of the unit, and its values."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/tracerouted/bin/tracerouted", sys.executable))

    assert run(program("systemd-analyze"), "verify", "--man=no", copy) == ""


def test_unit_is_hardened() -> None:
    """systemd's own judgement of the unit: an exposure of 2.0 at most, of 10."""
    said = run(program("systemd-analyze"), "security", "--offline=true", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for tracerouted\.service: ([0-9.]+)", said)

    assert exposure is not None
    assert float(exposure[1]) <= 2.0


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("[!k]*.yaml")), ids=lambda path: path.stem)
def test_manifests_are_valid(path: Path, kustomization: Any) -> None:
    """Each manifest follows Kubernetes' own schema to the letter, and is among those that are applied."""
    run(program("kubernetes-validate"), "--strict", path)

    assert path.name in kustomization["resources"]


def test_manifests_belong_together(kustomization: Any, manifests: dict[str, Any], pod: Any) -> None:
    """Everything is in the one namespace; the service, the policy and the deployment mean the same pods."""
    namespace = manifests["Namespace"]["metadata"]["name"]
    others = [manifest for kind, manifest in manifests.items() if kind != "Namespace"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert {namespace} == {kustomization["namespace"], *(manifest["metadata"]["namespace"] for manifest in others)}
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert pod["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_only_net_raw_is_given(compose: Any, container: Any, unit: dict[str, list[str]]) -> None:
    """One capability, in a way that reaches mtr-packet: a file's one in containers, an ambient one under systemd."""
    assert compose["cap_drop"] == ["ALL"]
    assert compose["cap_add"] == ["NET_RAW"]
    assert "security_opt" not in compose
    assert "privileged" not in compose
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is True
    assert container["securityContext"]["privileged"] is False
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == ["CAP_NET_RAW"]
    assert "PrivateUsers" not in unit


@pytest.mark.parametrize("path", [DOCKERFILE, PROJECT / "README.md"], ids=lambda path: path.name)
def test_only_net_raw_is_recommended(path: Path) -> None:
    """Whoever runs the image by hand is told to give the same."""
    options = re.findall(r"--(?:read-only|cap-(?:add|drop) \w+)", path.read_text())

    assert {"--read-only", "--cap-drop ALL", "--cap-add NET_RAW"} == set(options)


def test_pod_security_lets_it_in(manifests: dict[str, Any]) -> None:
    """The namespace says that its pods may add NET_RAW, which the "baseline" level refuses."""
    assert manifests["Namespace"]["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "privileged"}


def test_nobody_is_root(image: dict[str, list[str]], pod: Any, unit: dict[str, list[str]]) -> None:
    """The image's user is a number, as Kubernetes' runAsNonRoot wants, and not 0; systemd makes one up."""
    (user,) = image["USER"]
    context = pod["securityContext"]

    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"] is True
    assert unit["DynamicUser"] == ["yes"]


def test_nothing_is_written(compose: Any, pod: Any, container: Any, unit: dict[str, list[str]]) -> None:
    """The root file system is read-only everywhere; /tmp is private."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}

    assert compose["read_only"] is True
    assert compose["tmpfs"][0].startswith("/tmp")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [(mount["mountPath"], "emptyDir" in volumes[mount["name"]]) for mount in container["volumeMounts"]] == [
        ("/tmp", True)
    ]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["PrivateTmp"] == ["yes"]


def test_a_pod_has_no_say_in_its_cluster(manifests: dict[str, Any], pod: Any) -> None:
    """No token of the cluster's API reaches the pod; its system calls are filtered."""
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_a_drain_is_waited_for(
    image: dict[str, list[str]], compose: Any, pod: Any, container: Any, unit: dict[str, list[str]]
) -> None:
    """Whoever stops the service sends SIGTERM and waits longer than a drain may take."""
    name, before_s = container["lifecycle"]["preStop"]["exec"]["command"]

    assert image["STOPSIGNAL"] == ["SIGTERM"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > DRAIN_S
    assert name == "sleep"
    assert pod["terminationGracePeriodSeconds"] > int(before_s) + DRAIN_S
    assert int(unit["TimeoutStopSec"][0]) > DRAIN_S


def test_memory_suffices(compose: Any, container: Any, unit: dict[str, list[str]]) -> None:
    """The same limit everywhere; it has room for what the service keeps by default, three times over."""
    limits = {compose["mem_limit"].upper() + "I", container["resources"]["limits"]["memory"].upper()}
    limits.add(unit["MemoryMax"][0] + "I")
    (limit,) = (int(text.removesuffix("MI")) * 1024**2 for text in limits)
    settings = Settings()

    assert limit > 3 * (AT_REST_BYTES + settings.max_kept_bytes + settings.render_cache_bytes)
    assert int(container["resources"]["requests"]["memory"].removesuffix("Mi")) * 1024**2 > AT_REST_BYTES


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


def test_the_cluster_asks_the_right_questions(container: Any) -> None:
    """Whether it lives and whether it is ready are two resources of the contract, for which nobody needs a key."""
    paths = load(CONTRACT)["paths"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}

    assert {kind: probe["path"] for kind, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert all(paths[probe["path"]]["get"]["security"] == [] for probe in asked.values())
    assert {probe["port"] for probe in asked.values()} == {"http"}


def test_everybody_means_the_same_port(
    image: dict[str, list[str]], compose: Any, manifests: dict[str, Any], container: Any
) -> None:
    """The port the image exposes is the one that is published, connected to and let through."""
    (port,) = image["EXPOSE"]
    (published,) = compose["ports"]
    (served,) = manifests["Service"]["spec"]["ports"]
    (let_in,) = manifests["NetworkPolicy"]["spec"]["ingress"]

    assert published.endswith(f":{port}")
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert served["targetPort"] == "http"
    assert let_in == {"ports": [{"protocol": "TCP", "port": int(port)}]}


def test_the_network_policy_stops_no_permitted_probe(manifests: dict[str, Any]) -> None:
    """Networks it closes are refused as targets anyway; the rule for probes names no ports, which would leave out
    ICMP."""
    policy = TargetPolicy()
    (probes,) = (rule for rule in manifests["NetworkPolicy"]["spec"]["egress"] if "to" in rule)
    ipv4, ipv6 = (peer["ipBlock"] for peer in probes["to"])
    closed = [ip_network(text) for text in ipv4["except"]]

    assert set(probes) == {"to"}
    assert (ipv4["cidr"], ipv6) == ("0.0.0.0/0", {"cidr": "2000::/3"})
    assert closed
    assert all(policy.refusal(network[end]) for network in closed for end in (0, 1, -2, -1))
    assert policy.refusal(ip_network("2000::/3")[-1] + 1)


def test_prometheus_finds_the_service(manifests: dict[str, Any]) -> None:
    """The example configuration names the address that the manifests give the service in a cluster."""
    metadata, specification = manifests["Service"]["metadata"], manifests["Service"]["spec"]
    (served,) = specification["ports"]
    address = f"{metadata['name']}.{metadata['namespace']}.svc:{served['port']}"

    assert address in (PROJECT / "deploy" / "prometheus" / "prometheus.yml").read_text()


def test_the_release_is_named(compose: Any, container: Any, kustomization: Any) -> None:
    """Every file that names the image names the release of this checkout."""
    (tagged,) = kustomization["images"]
    image = f"tracerouted:{version('tracerouted')}"

    assert compose["image"] == container["image"] == f"{tagged['name']}:{tagged['newTag']}" == image


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
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
    assert done.stderr == "setup: write scripts/setup run, test, image, bench or fuzz\n"
