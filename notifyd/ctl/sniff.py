"""``notifyctl sniff``: shows what a port delivers, and finds out how it is to be read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, get_args

import click
import msgspec

from notifyd.agent import guess
from notifyd.agent.port import explain
from notifyd.config import ConfigurationError
from notifyd.config_agent import FramingName, Source, parse_agent
from notifyd.ctl.ports import printable_lines
from notifyd.ctl.rules_agent import pick_source
from notifyd.ctl.say import CommandError, complain
from notifyd.ctl.sniffing import SerialLine, Sniffer, find_rate
from notifyd.ctl.sourcetable import source_name, source_table
from notifyd.daemon import read_configuration
from notifyd.holders import holders


class _Rate(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer versions only
    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not str(value).isdecimal() or not 0 < int(str(value)[:9]) <= 20_000_000:
            self.fail(f"expected auto or a number of bits a second, got {value}", param, ctx)
        return int(str(value))


@click.command()
@click.argument("port")
@click.option("--baud", type=_Rate(), metavar="N|auto", help="Default: the source's, or 9600. auto tries common ones.")
@click.option(
    "--framing", type=click.Choice([*get_args(FramingName), "auto"]), metavar="NAME|auto", help="Default: auto."
)
@click.option("--config", "config_path", metavar="FILE", help="Show what the rules of this agent.toml make of frames.")
@click.option("--source", "name", metavar="NAME", help="Its source. Default: that of PORT, or the only one.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.")
def sniff(
    port: str, baud: int | None, framing: str | None, config_path: str | None, name: str | None, seconds: float | None
) -> None:
    """Show what PORT delivers, frame by frame, and end with a [[source]] table for agent.toml.

    The port is opened for this alone: stop the agent first. Nothing is sent to the device. Ctrl-C ends.
    """
    context = click.get_current_context()
    if name is not None and config_path is None:
        raise click.UsageError("--source needs --config", context)
    is_rate_given = context.get_parameter_source("baud") is not click.core.ParameterSource.DEFAULT
    source = _settings(port, config_path, name)
    if baud is not None:
        source = msgspec.structs.replace(source, baudrate=baud)
    wants_guess = framing == "auto" or (framing is None and config_path is None)
    if framing not in (None, "auto"):
        source = msgspec.structs.replace(source, framing=framing)
    line = _open(source)
    try:
        _run(line, source, seconds, has_rules=config_path is not None, guess_rate=is_rate_given and baud is None,
             guess_framing=wants_guess)  # fmt: skip
    finally:
        line.close()


def _settings(port: str, config_path: str | None, name: str | None) -> Source:
    if config_path is None:
        return Source(name=source_name("", port), port=port)
    try:
        settings = read_configuration(config_path, parse_agent)
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    mine = [source for source in settings.source if source.port == port]
    source = mine[0] if mine and name is None else pick_source(settings, config_path, name, None)
    return msgspec.structs.replace(source, port=port)


def _open(source: Source) -> SerialLine:
    try:
        return SerialLine(source)
    except Exception as error:  # noqa: BLE001 - pyserial, termios, drivers
        held = ", ".join(f"{holder.name} ({holder.pid})" for holder in holders(source.port))
        told = f"; open in {held}" if held else ""
        raise CommandError(f"{source.port}: {explain(error)}{told}") from None


def _run(
    line: SerialLine, source: Source, seconds: float | None, *, has_rules: bool, guess_rate: bool, guess_framing: bool
) -> None:
    data = b""
    try:
        if guess_rate:
            rate, data = find_rate(line, lambda rate, score: complain(f"{rate} baud: {score.why} ({score.value:.2f})"))
            if rate is None:
                raise CommandError("at no rate does it look like text or hold its checksums: try --baud by hand")
            complain(f"{rate} baud it is")
            source = msgspec.structs.replace(source, baudrate=rate)
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise CommandError(f"{source.port}: {explain(error)}") from None
    sniffer = Sniffer(None if guess_framing else source, source, has_rules=has_rules, wall=time.time())
    begin, lost = time.monotonic(), ""
    try:
        _show(sniffer.take(0.0, data))
        while seconds is None or time.monotonic() - begin < seconds:
            data = line.read()
            _show(sniffer.take(time.monotonic() - begin, data))
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return
    except OSError as error:  # pyserial's are such too; one without a number is a read that met the end
        lost = explain(error if error.errno or error.__context__ else None)
    _show(sniffer.end(time.monotonic() - begin))
    click.echo()
    click.echo(printable_lines(_table(source, sniffer)), nl=False)
    if lost:
        raise CommandError(f"{source.port}: {lost}")


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _table(source: Source, sniffer: Sniffer) -> str:
    """Gives the table of what was found; what has its default is left out."""
    # All that came says more than the beginning, by which frames were shown.
    framing = None if sniffer.guessed is None else sniffer.sample.framing
    settings: dict[str, Any] = {"name": source.name, "port": source.port, "baudrate": source.baudrate}
    sample = sniffer.sample.data
    comments = [f"{len(sample):,} bytes looked at"]
    bytesize, parity = guess.guess_parity(sample)
    if (source.bytesize, source.parity) != (8, "N"):
        bytesize, parity = source.bytesize, source.parity
    elif parity != "N":
        comments.append("bytesize and parity are a guess by the eighth bits: try them with care")
    if (bytesize, parity) != (8, "N"):
        settings |= {"bytesize": bytesize, "parity": parity}
    if framing is None:
        settings["framing"] = source.framing
    else:
        comments.append(f"framing: {framing.why}")
        settings |= {"framing": framing.framing, **framing.settings}
    return source_table(settings, comments)
