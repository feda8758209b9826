"""P1 telegrams of smart meters."""

from __future__ import annotations

import pytest

from notifyd.agent.framing import MAX_FRAME, Frame
from notifyd.agent.framing.dsmr import MAX_FIELDS, DsmrFramer
from tests.framings import crc, telegram


def text(*lines: str) -> bytes:
    """Lines as a meter ends them."""
    return "\r\n".join(lines).encode()


# What an Iskra meter printed, published with the tests of open readers of P1; its CRC is the meter's own.
ISKRA = text(
    r"/ISK5\2M550T-1013", "", "1-3:0.2.8(50)", "0-0:1.0.0(210307123721W)",
    "0-0:96.1.1(4530303534303037343736393431373139)", "1-0:1.8.1(002236.186*kWh)", "1-0:1.8.2(001755.060*kWh)",
    "1-0:2.8.1(000781.784*kWh)", "1-0:2.8.2(001871.581*kWh)", "0-0:96.14.0(0001)", "1-0:1.7.0(00.000*kW)",
    "1-0:2.7.0(00.662*kW)", "0-0:96.7.21(00004)", "0-0:96.7.9(00004)",
    "1-0:99.97.0(2)(0-0:96.7.19)(190911154933S)(0000000336*s)(201017081600S)(0000000861*s)",
    "1-0:32.32.0(00003)", "1-0:52.32.0(00001)", "1-0:72.32.0(00002)", "1-0:32.36.0(00001)", "1-0:52.36.0(00001)",
    "1-0:72.36.0(00001)", "0-0:96.13.0()", "1-0:32.7.0(233.7*V)", "1-0:52.7.0(233.6*V)", "1-0:72.7.0(230.9*V)",
    "1-0:31.7.0(003*A)", "1-0:51.7.0(001*A)", "1-0:71.7.0(000*A)", "1-0:21.7.0(00.000*kW)", "1-0:41.7.0(00.213*kW)",
    "1-0:61.7.0(00.076*kW)", "1-0:22.7.0(00.900*kW)", "1-0:42.7.0(00.000*kW)", "1-0:62.7.0(00.000*kW)", "!E1FA",
)  # fmt: skip

# The example of the P1 companion standard 5.0.2, without its last lines; the standard prints !EF2F behind all of
# them, which is not the CRC of what it prints, so that it is left out here and calculated.
STANDARD = text(
    r"/ISk5\2MT382-1000", "", "1-3:0.2.8(50)", "0-0:1.0.0(101209113020W)",
    "0-0:96.1.1(4B384547303034303436333935353037)", "1-0:1.8.1(123456.789*kWh)", "0-0:96.14.0(0002)",
    "1-0:1.7.0(01.193*kW)", "1-0:99.97.0(2)(0-0:96.7.19)(101208152415W)(0000000240*s)(101208151004W)(0000000301*s)",
    "0-1:24.1.0(003)", "0-1:96.1.0(3232323241424344313233343536373839)", "0-1:24.2.1(101209112500W)(12785.123*m3)", "!",
)  # fmt: skip

# In the form of DSMR 2 and 3, which have no CRC.
OLD = text(r"/ISk5\2MT382-1000", "", "1-0:1.8.1(12345.678*kWh)", "0-0:96.14.0(0002)", "1-0:1.7.0(001.19*kW)", "!")


def fed(data: bytes, framer: DsmrFramer | None = None) -> list[Frame]:
    """What one read gives, damaged telegrams too."""
    return (framer or DsmrFramer(bad_frames="send")).feed(data, 0.0)


def test_a_telegram_of_a_real_meter_is_one_frame() -> None:
    """All of its lines, with the CRC that the meter calculated."""
    first, second = fed(ISKRA + b"\r\n" + ISKRA + b"\r\n")
    assert first.data == second.data == ISKRA
    assert first.fields is not None
    assert first.fields["identification"] == r"\2M550T-1013"
    assert first.fields["1-0:1_8_1"] == "002236.186"
    assert first.fields["1-0:2_7_0"] == "00.662"
    assert first.fields["0-0:96_13_0"] == ""
    assert "1-0:99_97_0" not in first.fields


def test_the_value_behind_a_time_is_a_field() -> None:
    """Such as the gas meter's; a log of events is not."""
    (frame,) = fed(STANDARD + b"%04X\r\n" % crc(STANDARD))
    assert frame.fields is not None
    assert frame.fields["0-1:24_2_1"] == "12785.123"
    assert frame.fields["0-0:1_0_0"] == "101209113020W"
    assert "1-0:99_97_0" not in frame.fields


def test_a_changed_byte_is_found() -> None:
    """A kilowatt more is not believed."""
    changed = ISKRA.replace(b"00.662", b"10.662")
    (frame,) = fed(changed + b"\r\n")
    assert frame.data == changed
    assert frame.damaged is not None
    assert frame.damaged.startswith("checksum E1FA, calculated ")


def test_a_telegram_without_a_crc_is_taken_of_old_meters() -> None:
    """They have none."""
    first, second = fed(OLD + b"\r\n" + OLD + b"\r\n")
    assert first.data == second.data == OLD
    assert first.damaged is None
    assert first.fields is not None
    assert first.fields["1-0:1_7_0"] == "001.19"


@pytest.mark.parametrize("before", [b"", ISKRA + b"\r\n"])
def test_a_telegram_that_lost_its_crc_is_damaged(before: bytes) -> None:
    """Where one came with a CRC, or where it says that it is of a version that has one."""
    without = ISKRA[:-4] if not before else OLD
    frames = fed(before + without + b"\r\n")
    assert frames[-1] == Frame(without, damaged="no checksum")


def test_a_telegram_that_begins_within_another_is_found() -> None:
    """The first has lost its end."""
    first, second = fed(ISKRA[:300] + b"\r\n" + ISKRA + b"\r\n")
    assert first.damaged == "another telegram begins within it"
    assert second.data == ISKRA


def test_reading_may_begin_within_a_telegram() -> None:
    """As it does on a meter that has been running for years."""
    framer = DsmrFramer()
    assert [frame.data for frame in fed(ISKRA[200:] + b"\r\n" + ISKRA, framer)] == [ISKRA]
    assert framer.damaged_frames == 0
    assert framer.skipped_bytes > 0


def test_a_telegram_that_is_too_long_is_damaged_and_cut() -> None:
    """8 KiB is four times what meters print."""
    framer = DsmrFramer(bad_frames="send")
    (frame, good) = fed(telegram(b"F" * MAX_FRAME) + b"\r\n" + ISKRA, framer)
    assert (len(frame.data), frame.truncated, frame.damaged) == (MAX_FRAME, True, "no end within 8192 bytes")
    assert good.data == ISKRA


def test_fields_are_bounded() -> None:
    """A meter that prints lines without end does not make an event without end."""
    body = b"/ISK5\\2\r\n\r\n" + b"".join(b"1-0:%d.7.0(1)\r\n" % number for number in range(500)) + b"!"
    (frame,) = fed(body + b"%04X" % crc(body))
    assert len(frame.fields or {}) == MAX_FIELDS + 1


def test_what_is_left_when_the_port_is_lost_is_damaged() -> None:
    """A slash alone is noise."""
    framer = DsmrFramer(bad_frames="send")
    fed(ISKRA[:100], framer)
    rest = framer.flush()
    assert rest is not None
    assert (rest.data, rest.truncated) == (ISKRA[:100], True)
    fed(b"/IS", framer)
    assert framer.flush() is None
