"""``python -m flows.stack up|status|down|start NAME|commands|env``: the servers of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection

from flows.stack import folder as folders
from flows.stack import web
from flows.stack.clocks import complaint
from flows.stack.config import StackConfig
from flows.stack.down import down
from flows.stack.processes import LOGS
from flows.stack.servers import environment, servers, shown
from flows.stack.status import seen, table
from flows.stack.up import up
from jobs._cli import parse, piped, reported, terminated
from lazypipe.checks import nearest
from lazypipe.errors import ConfigError, LazypipeError

KINDS = ("postgres", "prefect", "mlflow", "worker", "dask", "spark")
USAGE = """usage: python -m flows.stack VERB [--config FILE] [--option value ...]

  up          start every server that does not run yet, and wait until all answer
  status      each server: whether it answers, where, what it takes; exit code 1 where one does not
  down        end what was started here; the data stay
  start NAME  start one (and what it needs): {kinds}
  commands    print what `up` runs, to be run by hand
  env         print the lines that let a shell use the servers: eval "$(python -m flows.stack env)"

python -m flows.stack up --help tells the options: folder, ports, sizes."""


@piped
def main(argv: list[str] | None = None) -> int:
    """Carry out a verb; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    verb = arguments.pop(0) if arguments else "--help"
    if verb in ("-h", "--help"):
        print(USAGE.format(kinds=", ".join(KINDS)))
        return 0
    signal.signal(signal.SIGTERM, terminated)
    try:
        if verb not in VERBS:
            raise ConfigError(f"{verb}: no such verb{nearest(verb, VERBS)}. Verbs: {', '.join(VERBS)}.")
        return VERBS[verb](arguments)
    except (LazypipeError, KeyboardInterrupt) as error:
        return reported(error, debug)


def _config(verb: str, what: str, arguments: list[str]) -> StackConfig:
    return parse(verb, StackConfig, arguments, "python -m flows.stack", what)


def _up(arguments: list[str]) -> int:
    config = _config("up", "Start every server that does not run yet, and wait until all answer.", arguments)
    return _start(config, ())


def _alone(arguments: list[str]) -> int:
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    config = _config(f"start {name or 'NAME'}", "Start one server, and what it needs.", arguments[bool(name) :])
    if name not in KINDS:
        what = f"{name}: no such server{nearest(name, KINDS)}" if name else "start: which server is missing"
        raise ConfigError(f"{what}. Servers: {', '.join(KINDS)}.")
    return _start(config.model_copy(update={"spark": True}) if name == "spark" else config, (name,))


def _start(config: StackConfig, kinds: Collection[str]) -> int:
    if not web.is_loopback(config.host):
        print(f"Warning: {config.host} is open to whoever reaches this machine: no password is asked.", file=sys.stderr)
    started = up(config, kinds)
    print("\n".join(table(seen(config.place))))
    if not started:
        print("All of it was up already.")
    print(f'To use it from this shell: eval "$({called("env", config)})"; to end it: {called("down", config)}')
    return 0


def _status(arguments: list[str]) -> int:
    config = _config("status", "Whether each server answers.", arguments)
    found = seen(config.place)
    if not found:
        print(f"{config.place}: nothing was started here. Start it with `{called('up', config)}`.")
        return 1
    print("\n".join(table(found)))
    complaints = [line for one in found if (line := complaint(one.name, one.ahead))]
    for line in complaints:
        print(f"Warning: {line}", file=sys.stderr)
    if any(one.state == "down" for one in found):
        print(f"What is down is started again by `{called('up', config)}`; why it ended is in {config.place / LOGS}.")
    return int(bool(complaints) or any(one.state != "up" for one in found))


def _down(arguments: list[str]) -> int:
    place = _config("down", "End what was started here; the data stay.", arguments).place
    ended = down(place)
    print(f"{place}: " + (f"ended {', '.join(ended)}." if ended else "nothing runs here."))
    return 0


def called(verb: str, config: StackConfig) -> str:
    """The command line of a verb for this stack."""
    folder = "" if config.folder == StackConfig().folder else f" --folder {shlex.quote(config.folder)}"
    return f"python -m flows.stack {verb}{folder}"


def _commands(arguments: list[str]) -> int:
    config = _config("commands", "Print what `up` runs, to be run by hand.", arguments)
    common = environment(config)
    print("# in every shell")
    for name, value in common.items():
        if name != "PATH" and os.environ.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    for server in servers(config):
        print(
            f"\n# {server.name}{': ' + server.page if server.page else ''}{f' (as {server.user})' * bool(server.user)}"
        )
        for command in server.first:
            print(shlex.join(command))
        own = [f"{name}={shlex.quote(value)}" for name, value in server.env.items() if common.get(name) != value]
        print(" ".join([*own, shlex.join(server.command)]))
    return 0


def _env(arguments: list[str]) -> int:
    config = _config("env", "Print the lines that let a shell use the servers.", arguments)
    config = folders.saved(config.place) or config
    for name, value in shown(config).items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"# --engine.kind dask --engine.address {config.dask_address}")
    if config.spark:
        print(f"# --engine.kind spark --engine.address {config.spark_address}")
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "up": _up,
    "status": _status,
    "down": _down,
    "start": _alone,
    "commands": _commands,
    "env": _env,
}

if __name__ == "__main__":
    sys.exit(main())
