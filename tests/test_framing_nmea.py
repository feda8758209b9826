"""NMEA 0183: sentences, TAG blocks, AIS, and what real receivers printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notifyd.agent.framing import Frame
from notifyd.agent.framing.nmea import MAX_ADDRESSES, NmeaFramer
from tests.framings import nmea, xor

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDINGS = sorted(DATA.glob("*/*.log")) + sorted(DATA.glob("*/*.txt"))

# The example of "AIVDM/AIVDO protocol decoding" (gpsd.gitlab.io/gpsd/AIVDM.html), section "AIVDM/AIVDO Sentence Layer".
AIVDM = b"!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C"


def fed(data: bytes, framer: NmeaFramer | None = None) -> list[Frame]:
    """What one read gives, damaged sentences too."""
    return (framer or NmeaFramer(bad_frames="send")).feed(data, 0.0)


def test_a_sentence_is_parsed() -> None:
    """Its talker, its kind and its fields; an empty field is an empty text."""
    (frame,) = fed(b"$GPGGA,214350,4023.8600,N,00339.1630,W,8,09,2.0,695.7,M,51.6,M,,*5A\r\n")
    fields = frame.fields or {}
    assert frame.data.startswith(b"$GPGGA,")
    assert frame.data.endswith(b"*5A")
    assert (fields["talker"], fields["sentence"], fields["checksum"]) == ("GP", "GGA", "5A")
    assert (fields["f1"], fields["f6"], fields["f13"], fields["f14"]) == ("214350", "8", "", "")


def test_an_ais_sentence_says_which_part_of_which_message_it_is() -> None:
    """The payload is not decoded."""
    (frame,) = fed(AIVDM + b"\r\n")
    assert frame.data == AIVDM
    assert frame.fields == {
        "talker": "AI", "sentence": "VDM", "fragments": "1", "fragment": "1", "message": "", "channel": "B",
        "f1": "1", "f2": "1", "f3": "", "f4": "B", "f5": "177KQJ5000G?tO`K>RA1wUbN0TKH", "f6": "0", "checksum": "5C",
    }  # fmt: skip


def test_a_proprietary_sentence_has_its_manufacturer() -> None:
    """Such as Garmin's estimated error."""
    (frame,) = fed(nmea(b"PGRME,15.0,M,45.0,M,25.0,M") + b"\n")
    assert frame.fields is not None
    assert [frame.fields[name] for name in ("talker", "manufacturer", "sentence", "f1")] == ["P", "GRM", "GRME", "15.0"]


def test_a_tag_block_belongs_to_its_sentence() -> None:
    """Where its own checksum is right; else it is noise, and the sentence is as good as before."""
    tag = b"\\g:1-2-73874,s:r003669945,c:1241544035*%02X\\" % xor(b"g:1-2-73874,s:r003669945,c:1241544035")
    (frame,) = fed(tag + AIVDM + b"\r\n")
    assert frame.data == tag + AIVDM
    assert frame.fields is not None
    assert (frame.fields["tag_g"], frame.fields["tag_s"], frame.fields["tag_c"]) == (
        "1-2-73874", "r003669945", "1241544035",
    )  # fmt: skip
    framer = NmeaFramer()
    (frame,) = fed(tag.replace(b"73874", b"73875") + AIVDM + b"\r\n", framer)
    assert frame.data == AIVDM
    assert (framer.skipped_bytes, framer.damaged_frames) == (len(tag), 0)


def test_a_sentence_within_a_damaged_one_is_found() -> None:
    """A dollar sign always begins a sentence; what came before it is damaged."""
    first, second = fed(b"noise$GPGGA,\x0012" + AIVDM + b"\r\n")
    assert first == Frame(b"$GPGGA,\x0012", damaged="no checksum")
    assert second.data == AIVDM


def test_a_wrong_checksum_is_told_with_the_right_one() -> None:
    """So that whoever reads it sees which byte it may have been."""
    assert fed(AIVDM[:-1] + b"d\r\n") == [Frame(AIVDM[:-1] + b"d", damaged="checksum 5D, calculated 5C")]


def test_a_sentence_without_a_checksum_is_taken_until_one_of_its_kind_had_one() -> None:
    """Old devices print none for some kinds; where there was one, a sentence without has lost it."""
    framer = NmeaFramer()
    (frame,) = fed(b"$GPGLL,4023.8600,N\r\n", framer)
    assert frame.fields is not None
    assert "checksum" not in frame.fields
    assert len(fed(nmea(b"GPGLL,1,N") + b"\r\n$GPGLL,2,N\r\n$GPRMC,3\r\n", framer)) == 2
    assert framer.damaged_frames == 1
    framer.flush()
    assert len(fed(b"$GPGLL,4,N\r\n", framer)) == 1


def test_a_device_that_makes_up_kinds_of_sentences_does_not_fill_the_memory() -> None:
    """Beyond a limit every sentence needs its checksum."""
    framer = NmeaFramer()
    for number in range(2 * MAX_ADDRESSES):
        fed(nmea(b"GP%03d,1" % number) + b"\n", framer)
    assert len(framer._summed) == MAX_ADDRESSES
    assert fed(b"$GPNEW,1\n", framer) == []


def test_what_is_left_when_the_port_is_lost_is_damaged() -> None:
    """From its beginning on; noise is not."""
    framer = NmeaFramer(bad_frames="send")
    fed(b"noise$GPGGA,12", framer)
    rest = framer.flush()
    assert rest is not None
    assert (rest.data, rest.truncated) == (b"$GPGGA,12", True)
    fed(b"noise", framer)
    assert framer.flush() is None
    assert framer.skipped_bytes == 10


def test_fields_are_read_in_the_sources_encoding() -> None:
    """Waypoints have names."""
    (frame,) = fed(nmea("GPWPL,K\xfcche".encode("latin-1")) + b"\n", NmeaFramer("latin-1"))
    assert frame.fields is not None
    assert frame.fields["f1"] == "K\xfcche"


def intact_sentences(data: bytes) -> list[bytes]:
    """All that stands between a beginning and a right checksum, found without the framing."""
    found = []
    for piece in re.findall(rb"[$!][^$!\\\r\n]+", data):
        summed = re.match(rb"[$!]([^*]*)\*([0-9A-Fa-f]{2})", piece)
        if summed is not None and int(summed[2], 16) == xor(summed[1]):
            found.append(summed[0])
    return found


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
@pytest.mark.parametrize("size", [7, 4096])
def test_every_intact_sentence_of_the_recordings_comes_once_and_in_order(size: int) -> None:
    """None is missing and none is invented, whatever stands between them, and what is no sentence is counted."""
    total = damaged = 0
    for path in RECORDINGS:
        data = path.read_bytes() + b"\n"
        framer = NmeaFramer()
        got = [frame for place in range(0, len(data), size) for frame in framer.feed(data[place : place + size], 0.0)]
        checked = [frame.data.rpartition(b"\\")[2] for frame in got if "checksum" in (frame.fields or {})]
        expected = intact_sentences(data)
        assert checked == expected, path.name
        assert framer.damaged_frames == len(re.findall(rb"[$!][^$!\\\r\n]+", data)) - len(got)
        total += len(expected)
        damaged += framer.damaged_frames
    assert total > 1_000
    assert damaged > 10
