"""Framing: bytes, however they arrive, to frames. Pure: bytes in, frames and replies out; docs/framings.md."""

from __future__ import annotations

import time
from collections.abc import Callable

from notifyd import config_agent
from notifyd.agent.framing.base import MAX_FRAME, MAX_REPLIES, Frame, Framer
from notifyd.agent.framing.contact_id import ContactIdFramer, SurgardFramer
from notifyd.agent.framing.dc09 import Dc09Framer
from notifyd.agent.framing.dsmr import DsmrFramer
from notifyd.agent.framing.espa import Espa444Framer
from notifyd.agent.framing.fixed import FixedFramer, GapFramer
from notifyd.agent.framing.lines import DelimiterFramer, LineFramer
from notifyd.agent.framing.nmea import NmeaFramer
from notifyd.agent.framing.stx import StxEtxFramer

__all__ = ["MAX_FRAME", "MAX_REPLIES", "Frame", "Framer", "LineFramer", "make_framer"]


def make_framer(source: config_agent.Source, now: Callable[[], float] = time.time) -> Framer:
    """Makes what finds the frames of one source.

    Args:
        source: its settings, which have been checked.
        now: the wall clock, in seconds since 1970: some replies have the time.
    """
    bad = source.bad_frames
    match source.framing:
        case "line":
            return LineFramer() if source.delimiter is None else DelimiterFramer(source.delimiter.encode("latin-1"))
        case "stx-etx":
            return StxEtxFramer(source.checksum, source.dle, bad)
        case "fixed":
            return FixedFramer(source.length or 1, source.gap, bad)
        case "gap":
            return GapFramer(source.gap or 0.05)
        case "nmea":
            return NmeaFramer(source.encoding, bad)
        case "dsmr":
            return DsmrFramer(bad)
        case "espa444":
            return Espa444Framer(source.station, source.encoding, bad)
        case "dc09":
            return Dc09Framer(source.encoding, bad, now)
        case "contact-id":
            return ContactIdFramer(bad)
        case "surgard":
            return SurgardFramer(bad)
