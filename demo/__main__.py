"""`python -m demo [--port PORT]`: serve a simulated internet's routes on a port of this machine until Ctrl-C.

One process listens on the port in the network namespace it was started in, then moves to a fresh one (as root, or as
anybody where user namespaces allow), starts the simulator and the daemon there, and relays connections to the daemon.
All of it ends with that process, however it ends: the simulator sees the end of its standard input, the daemon is
sent SIGTERM by the kernel, and the namespace goes with the last of them.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

from netsim import Lab, LabError, NamespaceUnavailable, namespace  # noqa: E402  # it belongs to the tests

from .relay import Address, relay  # noqa: E402

SCENARIOS = (HERE / "internet.toml", HERE / "example.toml", "hostile_names", "dns")
SERVICE: Address = ("127.0.0.1", 8080)
READY_S = 20.0
STOP_S = 10.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class DemoError(Exception):
    """The demonstration cannot go on; the message is for whoever started it."""


def main(arguments: list[str]) -> int:
    """Run the demonstration; the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="the port to serve on; 0 takes a free one")
    options = parser.parse_args(arguments)
    privileged = os.geteuid() == 0  # in a user namespace everybody is root
    try:
        with listen(options.port) as listener:
            os.environ.pop(namespace.ISOLATED, None)
            namespace.isolate()
            with Lab.start(SCENARIOS) as lab:
                asyncio.run(show(listener, lab))
    except NamespaceUnavailable as problem:
        return complain(f"no simulated internet here: {problem}", *advice(privileged))
    except (DemoError, LabError) as problem:
        return complain(str(problem))
    except KeyboardInterrupt:  # before `show` looks after signals
        return 128 + signal.SIGINT
    return 0


def complain(*lines: str) -> int:
    """Say what is wrong; the exit code."""
    sys.stderr.write("demo: " + "\n      ".join(lines) + "\n")
    return 1


def advice(privileged: bool) -> list[str]:
    """What to do where there is no simulated internet."""
    return [
        "It needs a network namespace (root's, or one in a user namespace) and a TUN device (/dev/net/tun, or what",
        f"{namespace.TUN} names). In a container: --cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun.",
        "On a host without the device: modprobe tun." + ("" if privileged else " Or try as root: sudo make demo."),
    ]


def listen(port: int) -> socket.socket:
    """A socket that listens on loopback in the present network namespace. Raises `DemoError`."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=100)
    except OverflowError:
        raise DemoError(f"there is no port {port}") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise DemoError(f"port {port} is in use; choose another: make demo PORT={port + 1}") from None
        raise DemoError(f"cannot listen on port {port}: {problem.strerror}") from None


def environment(lab: Lab, environ: Mapping[str, str]) -> dict[str, str]:
    """The daemon's: limits that suit a simulation, unless the caller's environment says otherwise."""
    return {
        "TRACEROUTED_LOG_LEVEL": "error",
        "TRACEROUTED_PROBES_PER_SECOND": "10000",
        "TRACEROUTED_TARGET_PROBES_PER_SECOND": "2000",
        "TRACEROUTED_TRACES_PER_PREFIX": "500",
        "TRACEROUTED_SHUTDOWN_S": "1",
        **environ,
        "TRACEROUTED_LISTEN": "{}:{}".format(*SERVICE),
        "TRACEROUTED_DNS_SERVERS": f"{lab.address('dns', 'ipv4')}:53",
        "TRACEROUTED_ASN_DNS": "true",
    }


async def show(listener: socket.socket, lab: Lab) -> None:
    """Run the daemon and the relay until a signal comes. Raises `DemoError`."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tracerouted",
        "serve",
        env=environment(lab, os.environ),
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C is for this process, which stops the others in order
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
    )
    simulator = os.pidfd_open(lab.pid)
    simulator_ended = asyncio.Event()
    loop.add_reader(simulator, simulator_ended.set)
    try:
        await first(stopped.wait(), ready(), ended(daemon))
        if stopped.is_set():
            return
        server = await relay(listener, SERVICE)
        sys.stdout.write(welcome("http://{}:{}".format(*listener.getsockname()), lab))
        sys.stdout.flush()
        await first(stopped.wait(), ended(daemon), simulator_ended.wait())
        server.close()
        if simulator_ended.is_set():
            raise DemoError("the simulator has ended")
    finally:
        loop.remove_reader(simulator)
        os.close(simulator)
        await stop(daemon)


async def first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Wait for one of them and cancel the others. Raises what that one raises."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


async def ended(daemon: asyncio.subprocess.Process) -> None:
    """Wait for the daemon's end, which comes too early. Raises `DemoError` then."""
    raise DemoError(f"the service has ended with exit code {await daemon.wait()}")


async def stop(daemon: asyncio.subprocess.Process) -> None:
    """Let the daemon end in order, or else kill it."""
    if daemon.returncode is not None:
        return
    daemon.terminate()
    try:
        await asyncio.wait_for(daemon.wait(), STOP_S)
    except TimeoutError:
        daemon.kill()
        await daemon.wait()


async def ready() -> None:
    """Wait until the daemon can trace both families. Raises `DemoError` if that takes too long."""
    loop = asyncio.get_running_loop()
    why, deadline = "it does not answer", loop.time() + READY_S
    while loop.time() < deadline:
        with suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(*SERVICE)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            families = json.loads(body)["families"]
            why = "; ".join(f"{family}: {its['reason']}" for family, its in families.items() if not its["ready"])
            if not why:
                return
        await asyncio.sleep(0.1)
    raise DemoError(f"the service is not ready to trace: {why}")


def welcome(url: str, lab: Lab) -> str:
    """What a newcomer should know."""
    targets = [(target, scenario) for scenario in lab.scenarios for target in scenario.targets if target.summary]
    parallel = {"target": "parallel.demo.test", "family": "ipv4", "protocol": "udp", "flows": 32, "probes": 1}
    lines = [
        f"tracerouted is at {url} and traces a simulated internet. Open it, and trace one of these:",
        "",
        *(f"    {f'{target.name}.{scenario.domain}':24} {target.summary}" for target, scenario in targets),
        "",
        "Without a browser: hops as they are found; the parallel paths; a JSON document when it is done.",
        "",
        f"    {curl(url, {'target': 'long.demo.test'}, 'Accept: text/plain')}",
        f"    {curl(url, parallel)}",
        f"    {curl(url, {'target': 'mpls.demo.test'})}",
        "",
        "No packet leaves this machine; these names, addresses and networks exist only here. Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


def curl(url: str, request: dict[str, Any], header: str = "Prefer: wait=30") -> str:
    """A command that asks for a trace."""
    words = ["curl", "-N", f"{url}/traces", "-H", header, "-H", "Content-Type: application/json"]
    return shlex.join([*words, "-d", json.dumps(request)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
