"""``notifyctl ports``: what is there, and a table to paste for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tty
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifyd import config_agent
from notifyd.ctl.ports import find_ports
from notifyd.ctl.sourcetable import MAX_NAME, source_name, source_table
from notifyd.holders import Holder, holders
from tests.fakehub import run


def listed(device: str, **known: Any) -> SimpleNamespace:
    """A port as pyserial lists it."""
    nothing = dict.fromkeys(("manufacturer", "product", "serial_number", "vid", "pid"))
    return SimpleNamespace(device=device, **(nothing | known))


def test_a_port_is_named_by_what_stays_the_same(tmp_path: Path) -> None:
    """Its link below by-id, else vendor, product and serial number, else the device; all tables together are a file."""
    devices = []
    for number in range(5):
        (device := tmp_path / f"ttyUSB{number}").write_text("")
        devices.append(str(device))
    (by_id := tmp_path / "by-id").mkdir()
    (by_id / "usb-FTDI_FT232R-if00-port0").symlink_to(devices[0])
    (by_id / "usb-FTDI_FT232R-if00-z").symlink_to(devices[0])
    ftdi = {"manufacturer": "FTDI", "product": "FT232R USB UART", "vid": 0x403, "pid": 0x6001}
    found = find_ports(
        [
            listed(devices[1], serial_number="A10K1234", **ftdi),
            listed(devices[0], serial_number="A1", **ftdi),
            listed(devices[2], **ftdi),
            listed(devices[3]),
            listed(devices[4], product='evil"\x1b[2J\n[listen]', serial_number='"\n\x85\u2028', vid=1, pid=2),
        ],
        by_id,
        lambda device: [Holder(7, "getty")] if device == devices[3] else [],
    )
    assert [each.port for each in found] == [
        str(by_id / "usb-FTDI_FT232R-if00-port0"),
        "usb:0403:6001:A10K1234",
        devices[2],
        devices[3],
        devices[4],
    ]
    assert [each.name for each in found] == [
        "ft232r-usb-uart", "ft232r-usb-uart-2", "ft232r-usb-uart-3", "ttyusb3", "evil-2j-listen",
    ]  # fmt: skip
    assert "# open in getty (7)" in found[3].table
    assert "# FTDI FT232R USB UART, serial number A1, now" in found[0].table
    config = config_agent.parse_agent("\n".join(each.table for each in found), "pasted")
    assert [(source.name, source.port) for source in config.source] == [(each.name, each.port) for each in found]


@given(st.text(max_size=300), st.text(min_size=1, max_size=50), st.lists(st.text(max_size=200), max_size=3))
def test_any_device_makes_a_table_that_can_be_pasted(product: str, port: str, comments: list[str]) -> None:
    """Whatever it calls itself."""
    name = source_name(product, "/dev/ttyUSB0", {"a"})
    assert name != "a"
    assert len(name) <= MAX_NAME
    table = source_table({"name": name, "port": port.replace("\0", "?"), "xonxoff": True, "stopbits": 1.5}, comments)
    assert all(line.isprintable() for line in table.splitlines() if line.startswith("#"))
    (source,) = config_agent.parse_agent(table, "pasted").source
    assert (source.name, source.port, source.stopbits) == (name, port.replace("\0", "?"), 1.5)


def test_names_are_unique() -> None:
    """As many devices of one kind as there may be."""
    taken: set[str] = set()
    for _ in range(20):
        taken.add(source_name("x" * 100, "", taken))
    assert len(taken) == 20
    assert source_name("", "", ()) == "device"


def test_it_is_told_who_has_a_device_open() -> None:
    """Another process, with its name; not this one."""
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        device = os.ttyname(slave)
        assert holders(device) == []
        code = f"import sys; f = open({device!r}); print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            found = holders(device)
            child.communicate(timeout=20)
        assert [holder.pid for holder in found] == [child.pid]
        assert found[0].name.startswith("python")
        assert holders("/none") == holders("/tmp") == []
    finally:
        os.close(master)
        os.close(slave)


def test_the_ports_of_this_machine_are_listed() -> None:
    """As a table, and as one JSON object each; each has a table that the agent takes."""
    status, out, err = run("ports", "--json")
    assert (status, err) == (0, "")
    for line in out.splitlines():
        config_agent.parse_agent(json.loads(line)["source"], "pasted")
    status, out, err = run("ports")
    assert status == 0
    assert "[[source]]" in out or "there is no serial port" in err
