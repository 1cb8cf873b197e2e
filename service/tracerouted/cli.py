"""The command line: `tracerouted serve`, `tracerouted healthcheck`, `tracerouted key new`.

This is the only module that touches the process: arguments, environment, signals, exit status, the global reactor.
A further command is a function with `@commands.command()`; whatever needs the reactor imports it inside the
function, so that the other commands start quickly.
"""

from __future__ import annotations

import gc
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import click
from attrs import define, field, fields
from click.shell_completion import get_completion_class
from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .logs import start_logging
from .settings import Address, SettingError, Settings, listed, option, unknown_variables
from .terminal.options import read_request, request_options

PROGRAM = "tracerouted"

HEALTHCHECK_TIMEOUT_S = 3.0
STOP_GRACE_S = 5.0  # beyond `shutdown_s`, which is for the traces: what ending streams and processes may take

#: Variables of `tracerouted trace`, which are no settings of the service.
SERVER_VARIABLE = "TRACEROUTED_SERVER"
API_KEY_VARIABLE = "TRACEROUTED_API_KEY"

MakeService = Callable[[Settings, Any], IService]

_log = Logger()


def setting_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator giving a command the options of these settings, or of all.

    The command gets each as the texts written, or (): `load_settings` makes sense of them.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for attribute in reversed(fields(Settings)):
            if not names or attribute.name in names:
                command = click.option(
                    option(attribute),
                    attribute.name,
                    metavar=attribute.metadata["metavar"],
                    multiple=True,
                    help=listed(attribute),
                )(command)
        return command

    return decorate


def load_settings(options: Mapping[str, tuple[str, ...]], environ: Mapping[str, str]) -> Settings:
    """Settings from the options of a command and the environment. Raises `click.UsageError` with one line."""
    for attribute in fields(Settings):
        if len(options.get(attribute.name, ())) > 1 and not attribute.metadata["repeatable"]:
            raise click.UsageError(f"{option(attribute)} is given more than once; write it once")
    try:
        return Settings.load({name: ",".join(texts) for name, texts in options.items() if texts}, environ)
    except SettingError as wrong:
        raise click.UsageError(str(wrong)) from None


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="tracerouted", message="tracerouted %(version)s")
@click.pass_context
def commands(context: click.Context) -> int:
    """A traceroute daemon: traceroutes over HTTP, streamed hop by hop."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return 2
    return 0


@commands.command()
@setting_options()
def serve(**options: tuple[str, ...]) -> int:
    """Serve traceroutes over HTTP until SIGTERM or SIGINT.

    Each option can also be set by the environment variable shown with it; the option wins.
    """
    settings = load_settings(options, os.environ)
    start_logging(settings.log_level, sys.stderr)
    for name, nearest in unknown_variables(os.environ):
        if name in (SERVER_VARIABLE, API_KEY_VARIABLE):
            continue
        if nearest:
            _log.warn("{variable} is no setting; is {nearest} meant?", variable=name, nearest=nearest)
        else:
            _log.warn("{variable} is no setting", variable=name)

    from .app import make_service

    return run(settings, make_service)


@commands.command()
@setting_options("listen")
def healthcheck(**options: tuple[str, ...]) -> int:
    """Ask a running service on this host whether it is alive: exit status 0 if it is, 1 if not.

    It asks the first address of --listen; give it the same options or environment as `serve`.
    """
    address = reachable(load_settings(options, os.environ).listen[0])
    connection = http.client.HTTPConnection(*address, timeout=HEALTHCHECK_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as wrong:
        reason = " ".join(str(wrong).split()) or type(wrong).__name__
        click.echo(f"http://{address}/healthz: {reason}", err=True)
        return 1
    finally:
        connection.close()
    click.echo(f"http://{address}/healthz: {status}", err=status != 200)
    return 0 if status == 200 else 1


@commands.group(no_args_is_help=False)
def key() -> None:
    """API keys."""


@key.command()
@click.argument("name")
def new(name: str) -> int:
    """Make a key for NAME, and print it with the line for the file of TRACEROUTED_API_KEYS_FILE.

    The key is kept nowhere and cannot be shown again.
    """
    from .http.keys import new_key

    try:
        secret, line = new_key(name)
    except ValueError as wrong:
        raise click.UsageError(f"{name!r}: {wrong}") from None
    click.echo(f"key:  {secret}\nline: {line}")
    return 0


@commands.command()
@click.argument("target")
@request_options
@click.option("--json", "output", flag_value="json", default=None, help="Print the trace as JSON at its end.")
@click.option("--text", "output", flag_value="text", default=None, help="Print the text of traceroute(8).")
@click.option("--mtr", "output", flag_value="mtr", default=None, help="Print the document of mtr --json.")
@click.option("--atlas", "output", flag_value="atlas", default=None, help="Print a RIPE Atlas result.")
@click.option(
    "--server",
    envvar=SERVER_VARIABLE,
    metavar="URL",
    help=f"Have the service at this address trace, instead of this host.  [{SERVER_VARIABLE}]",
)
@setting_options("mtr_packet", "dns_servers")
def trace(target: str, output: str | None, server: str | None, **options: Any) -> int:
    """Trace the route to TARGET, a host name or an IP address.

    Shows a live table in a terminal, and lines elsewhere. RTTs are in milliseconds.

    Exit status: 0 reached, 1 not reached, 2 wrong usage, 3 refused, 4 the service cannot be reached.

    Without --server this host traces, which needs mtr-packet and the right to open raw sockets; any address may
    be traced then. An API key for the service is taken from TRACEROUTED_API_KEY.
    """
    request, given = read_request(target, options)
    settings = load_settings({name: options[name] for name in ("mtr_packet", "dns_servers")}, os.environ)

    from .client import Client
    from .terminal.command import Run

    what = Run(request, given, output)
    if not server:
        return run_to_end(lambda reactor: what.here(settings, reactor))
    try:
        Client.check(server)
    except ValueError as wrong:
        raise click.UsageError(f"--server {wrong}") from None
    api_key = os.environ.get(API_KEY_VARIABLE) or None
    return run_to_end(lambda reactor: what.at(Client(server, reactor, api_key=api_key), reactor))


@commands.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for SHELL, to be evaluated by it.

    \b
    bash: eval "$(tracerouted completion bash)"
    zsh:  eval "$(tracerouted completion zsh)"
    fish: tracerouted completion fish | source
    """
    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(commands, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
    return 0


def reachable(address: Address) -> Address:
    """Where to reach a service listening on `address` from its own host: a wildcard becomes loopback."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(loopback.get(address.host, address.host), address.port)


def use_monotonic_clock(reactor: Any) -> None:
    """Make a reactor's timers immune to steps of the wall clock (twisted#2424). Call it before its first timer."""
    reactor.seconds = time.monotonic


def run(settings: Settings, make_service: MakeService) -> int:
    """Run a service on the global reactor until it is told to stop; the exit status of the process.

    0: stopped in order; 1: could not start, or was not done within `shutdown_s`.
    """
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    # What a probe leaves behind dies by reference count; looking for cycles after every few hundred allocations costs
    # a tenth of the processor time under load, and what was imported is looked at no more.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    process = _Process(reactor, settings)
    # As process 1 of a container, a signal without a handler would be lost: handlers come before all else. Twisted
    # takes SIGTERM for itself when it starts, so they are set again once it has.
    process.catch_signals()
    reactor.callWhenRunning(process.catch_signals)
    reactor.callWhenRunning(process.start, make_service)
    reactor.run()
    return process.status


def run_to_end(begin: Callable[[Any], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Run a coroutine on the global reactor; its result is the exit status of the process.

    SIGINT or SIGTERM cancel it, and it decides what to make of that; a second one ends the process.
    """
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    task = _Task(reactor)
    reactor.callWhenRunning(task.start, begin)
    reactor.run()
    return task.status


# Handlers of signals are put into words, with the object they belong to, whenever somebody looks at them
# (signal.getsignal), and Twisted does before each spawn: for a busy daemon that would take minutes.
@define(repr=False)
class _Task:
    """One coroutine's life in this process."""

    reactor: Any
    status: int = 1
    _running: Deferred[int] | None = field(default=None, init=False)
    _signalled: bool = field(default=False, init=False)

    def start(self, begin: Callable[[Any], Coroutine[Deferred[Any], Any, int]]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._running = Deferred.fromCoroutine(begin(self.reactor))
        self._running.addCallbacks(self._done, self._failed)
        self._running.addBoth(lambda _: self.reactor.stop())

    def _on_signal(self, number: int, frame: object) -> None:
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True
        assert self._running is not None
        self.reactor.callFromThread(self._running.cancel)

    def _done(self, status: int) -> None:
        self.status = status

    def _failed(self, failure: Failure) -> None:
        click.echo(failure.getTraceback(), err=True)


@define(repr=False)
class _Process:
    """One service's life in this process: start, drain once, exit status."""

    reactor: Any
    settings: Settings
    status: int = 0
    _service: Any = field(default=None, init=False)
    _signalled: bool = field(default=False, init=False)

    def catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._signalled:
            # The children see the end of their standard input and leave by themselves.
            os._exit(128 + number)
        self._signalled = True
        self.reactor.callFromThread(self._drain, signal.Signals(number).name)

    def start(self, make_service: MakeService) -> None:
        try:
            self._service = make_service(self.settings, self.reactor)
            self._service.privilegedStartService()
            self._service.startService()
        except CannotListenError as wrong:
            where = Address(str(wrong.interface or "0.0.0.0"), int(wrong.port))
            reason = getattr(wrong.socketError, "strerror", None) or str(wrong.socketError)
            _log.error(
                "cannot listen on {address}: {reason}; choose another address with --listen",
                address=str(where),
                reason=reason,
            )
        except SettingError as wrong:
            _log.error("cannot start: {wrong}", wrong=str(wrong))
        except Exception:
            _log.failure("cannot start")
        else:
            return
        self.status = 1
        self.reactor.stop()

    def _drain(self, reason: str) -> None:
        """Stop the service, then the reactor; the reactor in any case."""
        if self.status:
            return  # it never started
        _log.info("stopping after {reason}", reason=reason)
        limit = self.settings.shutdown_s + STOP_GRACE_S
        # Cancelling the Deferred instead would not do: that of a MultiService then reports success.
        late = self.reactor.callLater(limit, self._give_up, limit)
        stopping: Deferred[object] = maybeDeferred(self._service.stopService)
        stopping.addErrback(self._not_stopped)
        stopping.addCallback(self._stopped, late)

    def _not_stopped(self, failure: Failure) -> None:
        self.status = 1
        _log.failure("stopping failed", failure=failure)

    def _stopped(self, _: object, late: IDelayedCall) -> None:
        if late.active():
            late.cancel()
            self.reactor.stop()

    def _give_up(self, limit: float) -> None:
        self.status = 1
        _log.error("not stopped within {limit:g} s; leaving", limit=limit)
        self.reactor.stop()


def main() -> None:
    """The `tracerouted` program."""
    try:
        status = commands.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as wrong:
        click.echo(f"tracerouted: {wrong.format_message()}", err=True)
        status = wrong.exit_code
    except click.Abort:
        status = 130
    sys.exit(status)
