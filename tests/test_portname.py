"""Where a device can be, as the configuration says it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.portname import Device, File, Network, PortName, Usb, parse_port


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A1-if00-port0", None),
        ("/dev/ttyUSB0", None),
        ("usb:0403:6001", Usb(0x0403, 0x6001)),
        ("usb:1A86:7523", Usb(0x1A86, 0x7523)),
        ("usb:0403:6001:A10K1234", Usb(0x0403, 0x6001, "A10K1234")),
        ("usb:0403:6001:A:1", Usb(0x0403, 0x6001, "A:1")),
        ("socket://ser2net.example:3001", Network("ser2net.example", 3001, is_rfc2217=False)),
        ("rfc2217://192.0.2.7:2217", Network("192.0.2.7", 2217, is_rfc2217=True)),
        ("rfc2217://[2001:db8::7]:2217/", Network("2001:db8::7", 2217, is_rfc2217=True)),
        ("file:/run/panel.fifo", File("/run/panel.fifo")),
        ("file:-", File(None)),
    ],
)
def test_each_form_is_understood(text: str, port: PortName | None) -> None:
    """What has no form of its own is the path of a device."""
    assert parse_port(text) == (port or Device(text))


@pytest.mark.parametrize(
    "text",
    [
        *["usb:0403", "usb:403:6001", "usb:0403:600g", "usb:0403:6001:", "file:panel", "file:", "file://panel"],
        *["socket://host", "socket://:1", "socket://host:0", "socket://host:99999", "socket://host:x", "socket://[::1:5"],
        *["rfc2217://host:1/path", "rfc2217://host:1?logging=debug", "socket://me@host:1", "loop://", "tcp://host:1"],
    ],
)  # fmt: skip
def test_what_has_none_of_the_forms_is_refused_with_the_form(text: str) -> None:
    """A mistake is found when the file is read, not when the port is opened."""
    with pytest.raises(ValueError, match="expected "):
        parse_port(text)


@given(st.sampled_from(["", "usb:", "file:", "socket://", "rfc2217://"]), st.text())
def test_any_text_is_a_port_or_refused(form: str, text: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_port(form + text), Device | Usb | Network | File)
