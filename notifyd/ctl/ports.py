"""``notifyctl ports``: which serial ports are there, and how each is written into ``agent.toml``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from notifyd.ctl.say import complain, printable
from notifyd.ctl.sourcetable import source_name, source_table
from notifyd.holders import Holder, holders

BY_ID = Path("/dev/serial/by-id")


@dataclass(frozen=True)
class FoundPort:
    """A serial port.

    Attributes:
        device: its path.
        manufacturer: of a USB device, as it says itself; empty where it does not.
        product: the same.
        serial: its serial number.
        usb: vendor and product id and the serial number, as in ``usb:0403:6001:A10K1234``; empty for other ports.
        by_id: its name below ``/dev/serial/by-id``; empty where it has none.
        name: for its source.
        holders: who has it open.
    """

    device: str
    manufacturer: str
    product: str
    serial: str
    usb: str
    by_id: str
    name: str
    holders: tuple[Holder, ...]

    @property
    def port(self) -> str:
        """What ``port`` is best set to: what stays the same whichever socket the cable is in."""
        is_one = self.usb.count(":") > 2  # others of its kind have the same numbers
        return self.by_id or (self.usb if is_one else "") or self.device

    @property
    def table(self) -> str:
        """The ``[[source]]`` table."""
        told = " ".join(part for part in (self.manufacturer, self.product) if part) or "a serial port"
        comments = [f"{told}{', serial number ' + self.serial if self.serial else ''}, now {self.device}"]
        if self.holders:
            comments.append(f"open in {_told(self.holders)}")
        return source_table({"name": self.name, "port": self.port, "baudrate": 9600}, comments)


def find_ports(
    listed: Iterable[Any], by_id: Path = BY_ID, held: Callable[[str], list[Holder]] = holders
) -> list[FoundPort]:
    """Gives what is known of each port.

    Args:
        listed: as ``serial.tools.list_ports.comports()`` gives them.
        by_id: the folder of the links that udev makes.
        held: tells who has a device open.
    """
    links = _links(by_id)
    names: set[str] = set()
    found: list[FoundPort] = []
    for info in sorted(listed, key=lambda each: str(each.device)):
        product = info.product or ""
        name = source_name(product, info.device, names)
        names.add(name)
        found.append(
            FoundPort(
                device=info.device,
                manufacturer=info.manufacturer or "",
                product=product,
                serial=info.serial_number or "",
                usb=usb_identity(info.vid, info.pid, info.serial_number),
                by_id=links.get(os.path.realpath(info.device), ""),
                name=name,
                holders=tuple(held(info.device)),
            )
        )
    return found


def usb_identity(vendor: int | None, product: int | None, serial: str | None) -> str:
    """Gives the identity of a USB device as ``port`` takes it; an empty string for what is none."""
    if vendor is None or product is None:
        return ""
    told = f":{serial}" if serial and serial.isprintable() else ""
    return f"usb:{vendor:04x}:{product:04x}{told}"


def _links(folder: Path) -> dict[str, str]:
    """Gives the first link that leads to each device."""
    try:
        links = sorted(folder.iterdir(), reverse=True)
    except OSError:
        return {}
    return {os.path.realpath(link): str(link) for link in links}


def _told(held: Iterable[Holder]) -> str:
    return ", ".join(f"{holder.name} ({holder.pid})" for holder in held)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a port.")
def ports(as_json: bool) -> None:
    """List the serial ports, each with a [[source]] table for agent.toml."""
    from serial.tools.list_ports import comports

    found = find_ports(comports())
    if as_json:
        for each in found:
            click.echo(json.dumps(_document(each)))
        return
    if not found:
        complain("there is no serial port; after plugging one in, sudo dmesg | tail says what became of it")
        return
    click.echo(_shown(found), nl=False)
    for each in found:
        click.echo()
        click.echo(printable_lines(each.table), nl=False)


def printable_lines(text: str) -> str:
    """Gives lines without what a terminal would obey."""
    return "".join(printable(line) + "\n" for line in text.splitlines())


def _document(port: FoundPort) -> dict[str, object]:
    return {
        "device": port.device,
        "manufacturer": port.manufacturer,
        "product": port.product,
        "serial": port.serial,
        "usb": port.usb,
        "by_id": port.by_id,
        "name": port.name,
        "port": port.port,
        "open_in": [{"pid": holder.pid, "name": holder.name} for holder in port.holders],
        "source": port.table,
    }


def _shown(found: list[FoundPort]) -> str:
    table = Table()
    for title in ("device", "what it is", "stays the same", "open in"):
        table.add_column(title, overflow="fold")
    for port in found:
        what = ", ".join(part for part in (port.manufacturer, port.product, port.serial) if part)
        same = port.by_id or port.usb
        table.add_row(*(Text(printable(cell)) for cell in (port.device, what, same, _told(port.holders))))
    terminal = os.isatty(1)
    console = Console(force_terminal=terminal, width=None if terminal else 160, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
