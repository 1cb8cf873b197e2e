"""Images and containers without a Docker engine: what `deploy/image-test` builds with and runs in.

buildah builds, podman runs with crun, both with their storage below one directory. Containers share the network
namespace of whoever starts them, which is meant to be one with nothing but loopback in it.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
IMAGE = "localhost/tracerouted:test"
BASE = "localhost/base:bookworm"
PORT = 8080
PATIENCE_S = 20.0

#: What Debian's "slim" images leave out; the licences stay.
NOT_IN_SLIM = ("doc", "groff", "info", "lintian", "linda", "locale", "man")
#: What of the host's pip configuration a build can use: where the index is, not what lies on the host's disk.
PIP_SETTINGS = ("extra-index-url", "index-url", "proxy", "timeout", "trusted-host")


class Failed(Exception):
    """A promise the image does not keep."""


def check(holds: object, promise: str) -> None:
    if not holds:
        raise Failed(promise)
    print(f"  ok: {promise}", flush=True)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    if done.returncode:
        raise Failed(
            f"{' '.join(str(word) for word in command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        )
    return done


def tool(work: Path, name: str) -> list[str | Path]:
    return [name, "--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs"]


# --- build -------------------------------------------------------------------------------------------------------


def make_base(path: str) -> None:
    """A tar of a Debian as small as debian:bookworm-slim."""
    leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_IN_SLIM]
    keep = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    # usr-is-merged takes the place of a package with the same end that brings all of Perl.
    hook = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
    options = ["--variant=minbase", "--quiet", "--include=usr-is-merged", hook, *leave_out, keep]
    run("mmdebstrap", *options, "bookworm", path)


def pip_configuration() -> str:
    """The host's, as far as it serves a build in a container."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    lines = ["[global]"]
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        words = [word for word in value.strip("'").split() if not word.startswith("file:")]
        if name.rpartition(".")[2] in PIP_SETTINGS and words:
            lines.append(f"{name.rpartition('.')[2]} = {' '.join(words)}")
    return "\n".join(lines) + "\n"


def build(work: Path) -> None:
    """IMAGE from the Dockerfile on BASE. The host's certificates and pip configuration do not stay in it."""
    base = os.environ.get("BASE_TAR")
    if not base:
        base = str(work / "base.tar")
        print("making a minimal Debian ...", flush=True)
        make_base(base)
    run(*tool(work, "podman"), "import", base, BASE)

    configuration = pip_configuration()
    volumes: list[str | Path] = []
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        configuration += "cert = /run/host-certificates.crt\n"
        volumes += ["--volume", f"{certificates}:/run/host-certificates.crt:ro"]
    (work / "pip.conf").write_text(configuration)
    volumes += ["--volume", f"{work / 'pip.conf'}:/etc/pip.conf:ro"]

    print("building the image ...", flush=True)
    flags = ["--isolation", "chroot", "--pull-never", "--format", "docker", "--build-arg", f"BASE={BASE}"]
    run(*tool(work, "buildah"), "bud", *flags, *volumes, "--tag", IMAGE, PROJECT)


def build_context(work: Path) -> set[str]:
    """Every file a build gets to see, by its path in the project."""
    listing, image = work / "Dockerfile.context", "localhost/context:test"
    listing.write_text("FROM scratch\nCOPY . /\n")
    run(*tool(work, "buildah"), "bud", "--isolation", "chroot", "--file", listing, "--tag", image, PROJECT)
    with mounted(work, image) as root:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@contextmanager
def mounted(work: Path, image: str) -> Iterator[Path]:
    """The file system of an image, seen with the host's rights."""
    yield Path(run(*tool(work, "podman"), "image", "mount", image).stdout.strip())
    run(*tool(work, "podman"), "image", "unmount", image)


def inspect_image(work: Path, image: str) -> Any:
    return json.loads(run(*tool(work, "podman"), "image", "inspect", image).stdout)[0]


# --- containers --------------------------------------------------------------------------------------------------


class Container:
    """One container of the image; `extra` are options of `podman run`, `command` replaces the image's."""

    def __init__(self, work: Path, name: str, extra: list[str], command: list[str] | None = None) -> None:
        self.podman = tool(work, "podman")
        self.work = work
        self.name = name
        self.run_options = [
            *("--name", name, "--runtime", "crun", "--cgroups=disabled", "--network", "host"),
            *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1000:1000"),
            *("--read-only", "--tmpfs", "/tmp", "--env", "TRACEROUTED_ALLOW_TARGETS=127.0.0.0/8,::1/128"),
            *("--log-driver", "k8s-file", *extra, IMAGE, *(command or [])),
        ]

    def __enter__(self) -> Container:
        run(*self.podman, "run", "--detach", *self.run_options)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*map(str, self.podman), "rm", "--force", "--time", "0", self.name], capture_output=True)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*map(str, self.podman), "exec", self.name, *command], capture_output=True, text=True)

    def health(self) -> subprocess.CompletedProcess[str]:
        """The image's own health check, run in here."""
        image = inspect_image(self.work, IMAGE)
        kind, *words = image["Config"].get("Healthcheck", image.get("Healthcheck"))["Test"]
        assert kind == "CMD"
        return self.execute(*words)

    def inspect(self) -> Any:
        return json.loads(run(*self.podman, "inspect", self.name).stdout)[0]

    @property
    def pid(self) -> int:
        """The process the container is for, as the host counts."""
        return int(self.inspect()["State"]["Pid"])

    def log(self) -> str:
        return run(*self.podman, "logs", self.name).stdout

    def events(self) -> list[dict[str, Any]]:
        """The log's lines."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM and wait; the exit status, and the seconds it took."""
        began = time.monotonic()
        run(*self.podman, "stop", "--time", "30", self.name)
        took = time.monotonic() - began
        status = int(self.inspect()["State"]["ExitCode"])
        if status:
            print(self.log()[-4000:])
        return status, took


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- the service in it -------------------------------------------------------------------------------------------


def ask(method: str, path: str, body: Any = None, host: str = "127.0.0.1", **headers: str) -> tuple[int, Any]:
    """Status and content of an answer, parsed where it is JSON."""
    connection = http.client.HTTPConnection(host, PORT, timeout=30)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


def wait_until(holds: Callable[[], Any], promise: str, container: Container) -> None:
    deadline = time.monotonic() + PATIENCE_S
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = holds()
        except OSError as wrong:
            last = wrong
        else:
            if last:
                return
        time.sleep(0.2)
    raise Failed(f"{promise} (last: {last})\n{container.log()[-4000:]}")


def wait_for(path: str, container: Container, families: int = 0) -> None:
    """Ask until the answer is 200 and as many address families are ready."""

    def answers() -> bool:
        status, document = ask("GET", path)
        ready = sum(family["ready"] for family in document.get("families", {}).values())
        return status == 200 and families <= ready

    wait_until(answers, f"{path} answers 200", container)
