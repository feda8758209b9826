"""``notifyctl replay``: plays a recording through a pty."""

from __future__ import annotations

from pathlib import Path

import click

from notifyd.agent.recording import Playback, RecordingError, bytes_per_second
from notifyd.ctl.pty_player import LinkTakenError, Player, Pty
from notifyd.ctl.rules_agent import file_chunks
from notifyd.ctl.say import CommandError, complain


class _Speed(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer versions only
    name = "speed"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value == "max":
            return None
        try:
            speed = float(str(value))
        except ValueError:
            speed = 0.0
        if not 0 < speed <= 1_000_000:
            self.fail(f"expected max or a number above 0, got {value}", param, ctx)
        return speed


@click.command()
@click.argument("file")
@click.option("--port", "link", metavar="LINK", help="Name the pty LINK. Default: its own name, which is printed.")
@click.option(
    "--speed", type=_Speed(), default="1", metavar="1|N|max", help="N times as fast, or as fast as it is read."
)
@click.option("--baud", type=click.IntRange(1, 20_000_000), metavar="N", help="How fast a file without times is: 8N1.")
@click.option("--reopen", is_flag=True, help="Unplug the device where the recorded one was; needs --port.")
@click.option("--loop", is_flag=True, help="Play it again and again, until Ctrl-C.")
def replay(file: str, link: str | None, speed: float | None, baud: int | None, reopen: bool, loop: bool) -> None:
    """Play FILE, a recording or just what a device printed, through a pty.

    It begins when somebody has opened the pty, and ends when all is read.
    """
    if reopen and link is None:
        raise click.UsageError("--reopen needs --port: a new pty has another name", click.get_current_context())
    rate = None if baud is None else bytes_per_second(baud)
    first = _open(file, rate)
    if baud is not None and first.header is not None:
        raise click.UsageError(f"{file} has its own times: --baud is for files without", click.get_current_context())
    pty = Pty(None if link is None else Path(link))
    try:
        pty.plug()
        click.echo(pty.name)
        left = _play(Player(pty, speed, reopen=reopen), first, file, rate, loop=loop)
    except RecordingError as error:
        raise CommandError(f"{file}: {error}") from None
    except LinkTakenError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{pty.name or link}: {error.strerror or error}") from None
    finally:
        pty.unplug()
    if left:
        raise CommandError(f"nobody has {pty.name} open any more: {left:,} bytes at least were not read")


def _open(file: str, rate: float | None) -> Playback:
    try:
        return Playback(file_chunks(file), rate)
    except RecordingError as error:
        raise CommandError(f"{file}: {error}") from None


def _play(player: Player, first: Playback, file: str, rate: float | None, *, loop: bool) -> int:
    player.wait_for_reader()
    playback = first
    while True:
        left = player.play(playback)
        if playback.is_torn:
            complain(f"{file}: its last line has no end, and is left out")
        if left or not loop or not player.played:
            return left
        playback = _open(file, rate)
