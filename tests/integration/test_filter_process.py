"""The operator's own code in a hub that runs as a process: whatever it does, the hub goes on, and ends when told to."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.daemon import STOP_TIMEOUT_S
from tests.integration.rig import Client, Hub

PLAIN = """
class Filter:
    def preprocess(self, event):
        return {"shift": {"zone": event.data["fields"]["zone"]}}

    def characterise(self, event):
        return "critical" if event.data["context"]["shift"]["zone"] == "7" else None
"""

ASYNC = """
from twisted.internet import reactor
from twisted.internet.task import deferLater

class Filter:
    async def preprocess(self, event):
        await deferLater(reactor, 0.01)
        return {"shift": {"zone": event.data["fields"]["zone"]}}

    async def characterise(self, event):
        await deferLater(reactor, 0.01)
        return "critical" if event.data["context"]["shift"]["zone"] == "7" else None
"""

DEFERRED = """
from twisted.internet import reactor
from twisted.internet.task import deferLater

class Filter:
    def preprocess(self, event):
        return deferLater(reactor, 0.01, lambda: {"shift": {"zone": event.data["fields"]["zone"]}})

    def characterise(self, event):
        zone = event.data["context"]["shift"]["zone"]
        return deferLater(reactor, 0.01, lambda: "critical" if zone == "7" else None)
"""

SLEEPING = PLAIN.replace("        return {", "        import time; time.sleep(0.005)\n        return {")

RAISING = """
class Filter:
    def preprocess(self, event):
        return {"zone": event.data["fields"]["zone"]}

    def characterise(self, event):
        if event.data["fields"]["zone"] != "7":
            raise SystemExit(f"no zone {event.data['fields']['zone']}")
        return "critical"
"""

HANGING = """
import threading

class Filter:
    def characterise(self, event):
        if event.data["fields"]["zone"] == "hang":
            threading.Event().wait()
        return "critical"
"""

PENDING = """
from twisted.internet.defer import Deferred

class Filter:
    def characterise(self, event):
        return Deferred() if event.data["fields"]["zone"] == "hang" else "critical"
"""


class Ward:
    """A hub with a filter whose module stands in a folder of its own.

    Args:
        start: of the rig.
        folder: for everything.
        code: of the module.
        settings: lines of ``[filter]``.
    """

    def __init__(self, start: Callable[..., Any], folder: Path, code: str, settings: str = "") -> None:
        (folder / "code").mkdir()
        (folder / "code" / "ward_filter.py").write_text(code)
        self.hub: Hub = start(Hub, folder, f'[filter]\nfactory = "ward_filter:Filter"\n{settings}')
        self.hub.env = {"PYTHONPATH": str(folder / "code")}


def event(number: int, zone: str) -> str:
    """Gives an event line."""
    fields = {"zone": zone}
    return json.dumps(
        {"id": str(number), "source": "/s", "type": "t", "priority": "normal", "data": {"fields": fields}}
    )


@pytest.mark.parametrize(
    ("code", "settings"),
    [(PLAIN, ""), (ASYNC, ""), (DEFERRED, ""), (PLAIN, "blocking = true"), (SLEEPING, "blocking = true")],
    ids=["plain", "async", "Deferred", "blocking", "blocking, with pauses"],
)
def test_a_filter_decides_whichever_way_it_answers(
    code: str, settings: str, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """What it adds and what it names is there for clients, in the order in which the events came."""
    hub = Ward(start, tmp_path, code, settings).hub
    hub.start()
    with Client(hub.ports["all"]) as client, Client(hub.ports["ingest"]) as producer:
        client.subscribe(after="now")
        producer.send(*(event(number, "78"[number % 2]) for number in range(200)))
        for number in range(200):
            seen = client.event()
            zone = "78"[number % 2]
            assert (seen["id"], seen["data"]["context"]) == (str(number), {"shift": {"zone": zone}})
            expected = ("critical", "filter") if zone == "7" else ("normal", "hint")
            assert (seen["priority"], seen["rule"]) == expected


@pytest.mark.parametrize("settings", ["", "blocking = true"], ids=["plain", "blocking"])
def test_a_filter_that_raises_makes_error_events(settings: str, tmp_path: Path, start: Callable[..., Any]) -> None:
    """SystemExit costs its event the priority and nothing else; the log has one traceback, and later a count."""
    hub = Ward(start, tmp_path, RAISING, settings).hub
    process = hub.start()
    with Client(hub.ports["all"]) as client, Client(hub.ports["ingest"]) as producer:
        client.subscribe(after="now")
        producer.send(*(event(number, "78"[number % 2]) for number in range(300)))
        for number in range(300):
            seen = client.event()
            assert seen["id"] == str(number)
            if number % 2:
                assert (seen["priority"], seen["rule"]) == ("error", "filter")
                assert seen["reason"] == "filter: characterise raised SystemExit: no zone 8"
            else:
                assert seen["priority"] == "critical"
    process.stop()
    assert process.text.count("Traceback") == 1
    assert "ward_filter.py" in process.text
    assert "The filter, 149 times more within" in process.text


@pytest.mark.parametrize(
    ("code", "settings"), [(HANGING, "blocking = true"), (PENDING, "")], ids=["thread", "Deferred"]
)
def test_a_filter_that_hangs_costs_events_their_priority_but_holds_nobody(
    code: str, settings: str, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """After the timeout the event is an error, those behind it go on, and SIGTERM ends the hub at once."""
    hub = Ward(start, tmp_path, code, f'timeout = "0.5s"\n{settings}').hub
    process = hub.start()
    with Client(hub.ports["all"]) as client, Client(hub.ports["ingest"]) as producer:
        client.subscribe(after="now")
        producer.send(event(1, "7"))
        assert client.event()["priority"] == "critical"
        began = time.monotonic()
        producer.send(event(2, "hang"))
        seen = client.event()
        assert (seen["id"], seen["priority"]) == ("2", "error")
        assert seen["reason"] == "filter: no answer within 0.5 s"
        assert 0.5 <= time.monotonic() - began < 5
        producer.send(event(3, "7"))
        seen = client.event()
        if settings:
            assert seen["reason"] == "filter: not asked, since an earlier call has not returned"
        else:
            assert seen["priority"] == "critical"
        assert producer.line().startswith("ACK ")
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert time.monotonic() - began < STOP_TIMEOUT_S / 2
    assert "stop was not clean" not in process.text


@pytest.mark.parametrize(
    ("code", "settings", "reason"),
    [
        ("raise SystemExit('no licence')", "", "ward_filter cannot be imported: SystemExit: no licence"),
        ("import nothing_of_this_name", "", "ward_filter cannot be imported: ModuleNotFoundError"),
        ("def Filter(: pass", "", "ward_filter cannot be imported: SyntaxError"),
        ("x = 1", "", "ward_filter has no Filter"),
        ("def Filter(): raise KeyError('zone')", "", "ward_filter:Filter cannot be called: KeyError: 'zone'"),
        ("class Filter: pass", "", "has neither preprocess nor characterise"),
        (ASYNC, "blocking = true", "has an async preprocess, which does not go with blocking = true"),
    ],
)
def test_a_filter_that_cannot_be_loaded_ends_the_hub_before_it_opens_anything(
    code: str, settings: str, reason: str, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """One line says why, the status is 1, and not even the state folder was made."""
    hub = Ward(start, tmp_path, code, settings).hub
    process = hub.start(wait=False)
    assert process.wait() == 1
    assert reason in process.text
    assert "Traceback" not in process.text
    assert not hub.state.exists()
    assert "Listening" not in process.text
