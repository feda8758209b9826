"""``notifyctl send`` as a process, against a hub that does what the test says."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from notifyd import event as events
from notifyd.ctl import send as send_module
from tests.fakehub import Port, notifyctl, run, write_config


def _send(tmp_path: Path, *arguments: str, answer: bytes = b"ACK 1") -> tuple[bytes, tuple[int, bytes, str]]:
    """Sends to a hub that answers so; gives the line that it was sent, and how the command ended."""
    with Port() as port, notifyctl("send", *arguments, "--config", write_config(tmp_path, ingest=port.number)) as send:
        hub = port.accept()
        line = hub.line()
        if answer:
            hub.send(*answer.split(b"\n"))
        else:
            hub.close()
        return line, send.end()


def test_an_event_is_sent_and_its_id_printed_once_the_hub_has_it(tmp_path: Path) -> None:
    """The hub gets a complete CloudEvent with the text as its line."""
    line, (status, out, err) = _send(tmp_path, "door.open", "Front door", "--priority", "critical")
    event = json.loads(line)
    assert (status, err) == (0, "")
    assert out.decode() == event["id"] + "\n"
    assert events.is_rfc3339(event.pop("time"))
    assert len(event.pop("id")) == 36
    assert event == {
        "specversion": "1.0",
        "source": f"/notifyctl/{socket.gethostname()}",
        "type": "door.open",
        "priority": "critical",
        "data": {"line": "Front door"},
    }


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ((), None),
        (("Grüße\n東",), b'{"line":"Gr\xc3\xbc\xc3\x9fe\\n\xe6\x9d\xb1"}'),
        (("--data", '{"a": 1.10,\n "b": [12345678901234567890123]}'), b'{"a":1.10,"b":[12345678901234567890123]}'),
        (("text", "--data", '{"a": 1.10}'), b'{"line":"text","a":1.10}'),
        (("text", "--data", '{"line": "other"}'), b'{"line":"other"}'),
        (("--data", " [1, 2]"), b"[1,2]"),
    ],
)
def test_text_and_data_are_put_together(tmp_path: Path, arguments: tuple[str, ...], data: bytes | None) -> None:
    """TEXT becomes data.line unless there is one; figures stay as they were written."""
    line, (status, _, _) = _send(tmp_path, "t", "--source", "/s", *arguments)
    assert status == 0
    assert json.loads(line)["source"] == "/s"
    if data is None:
        assert b'"data"' not in line
    else:
        assert line.endswith(b'"data":' + data + b"}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"REJECT 1 no such\x1b[2J thing\nACK 1", "refused the event, and kept it as an error: no such\\x1b[2J thing"),
        (b"ERROR too many producers", "ended the connection: too many producers"),
        (b"", "closed the connection without an answer"),
        (b"220 mail.example.org ESMTP", "does not answer as a notify-hub does"),
        (b"A" * 140_000, "does not answer as a notify-hub does"),
    ],
)
def test_an_event_that_the_hub_does_not_confirm_is_told(tmp_path: Path, answer: bytes, said: str) -> None:
    """One line with the reason, status 1, and no id."""
    _, (status, out, err) = _send(tmp_path, "t", answer=answer)
    assert (status, out) == (1, b"")
    assert said in err
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_a_hub_that_is_not_there_is_told(tmp_path: Path) -> None:
    """At once, with the address."""
    with Port() as port:
        number = port.number
    status, out, err = run("send", "t", "--config", write_config(tmp_path, ingest=number))
    assert (status, out) == (1, "")
    assert err == f"notifyctl: cannot connect to the hub at 127.0.0.1:{number}: Connection refused\n"


def test_ctrl_c_ends_send_quietly(tmp_path: Path) -> None:
    """While the hub has not answered yet."""
    with Port() as port, notifyctl("send", "t", "--config", write_config(tmp_path, ingest=port.number)) as send:
        port.accept().line()
        send.interrupt()
        assert send.end() == (130, b"", "")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("",), 2, "attribute type is empty"),
        (("t", "--source", ""), 2, "attribute source is empty"),
        (("t", "--data", "{"), 2, "--data: no valid JSON"),
        (("t", "--data", "[NaN]"), 2, "--data: no valid JSON"),
        (("t", "text", "--data", "[]"), 2, "must be a JSON object"),
        (("t", "--priority", "error"), 2, "--priority"),
        (("t", os.fsdecode(b"\xff")), 2, "UTF-8"),
        ((os.fsdecode(b"\xff"),), 2, "UTF-8"),
        (("t", "x" * 66_000), 1, "the hub takes at most 65536"),
        (("t", "--data", "[" * 1001 + "]" * 1001), 2, "recursion|nested deeper"),
    ],
)
def test_what_the_hub_would_refuse_is_not_sent(arguments: tuple[str, ...], status: int, said: str) -> None:
    """One line says what is wrong with the command line."""
    assert (result := run("send", *arguments))[:2] == (status, "")
    # How deep a parser goes before it gives up is a matter of Python's version.
    assert any(words in result[2] for words in said.removeprefix("--data: ").split("|"))
    assert len(result[2].splitlines()) == 1


def test_a_hub_that_never_answers_is_given_up() -> None:
    """The message says that the event may be stored all the same."""
    from twisted.internet.task import Clock

    clock = Clock()
    connection = send_module._Producer(b"{}")
    connection.makeConnection(StringTransport())
    failures: list[Any] = []
    done: Deferred[None] = connection.done
    done.addTimeout(send_module.ANSWER_TIMEOUT_S, clock, send_module._timed_out)
    done.addErrback(failures.append)
    clock.advance(send_module.ANSWER_TIMEOUT_S)
    assert "within 10 s" in failures[0].getErrorMessage()
    connection.dataReceived(b"ACK 1\n")  # too late, and no mistake
