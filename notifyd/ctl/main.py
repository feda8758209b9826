"""The command ``notifyctl``: finds the subcommand, and tells every mistake in one line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import NoReturn

import click

from notifyd import __version__
from notifyd.ctl.say import complain

COMMANDS = ("tail", "send", "history", "explain", "rules", "ports", "sniff", "replay", "check", "demo")
"""Each is a click command of that name in the module of that name beside this one."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for: no command waits for what another needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Gives the subcommands that are installed, in the order of the help."""
        return [name for name in COMMANDS if importlib.util.find_spec(_module(name)) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a subcommand; None where there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(importlib.import_module(_module(cmd_name)), cmd_name)
        return command


def _module(command: str) -> str:
    return f"notifyd.ctl.{command}"


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="notifyctl")
@click.pass_context
def notifyctl(ctx: click.Context) -> None:
    """Watch, send, explain and check events of a notify-hub."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Runs ``notifyctl``: status 2 for a wrong command line, 1 for what went wrong, 130 after Ctrl-C."""
    try:
        status = notifyctl.main(prog_name="notifyctl", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "notifyctl"
        complain(f"{error.format_message()} (see {path} --help)")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(status)


if __name__ == "__main__":
    main()
