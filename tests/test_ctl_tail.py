"""``notifyctl tail`` as a process, against a hub that does what the test says."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from tests.fakehub import BOUND_S, Port, event, notifyctl, read_some, run, write_config


def test_event_lines_come_into_a_pipe_exactly_as_the_hub_sent_them(tmp_path: Path) -> None:
    """Odd spacing, escapes and characters of any script are not touched."""
    odd = '{ "offset" : "11",\t"data":{"line":"Größe \\u001b[2J 東 \x9b"} , "id":"x"}'.encode()
    surrogate = b'{"offset":"12","data":{"line":"\\ud800"}}'
    deep = b'{"data":' + b"[" * 990 + b"]" * 990 + b',"offset":"13"}'
    with Port() as port, notifyctl("tail", "normal", "--config", write_config(tmp_path, normal=port.number)) as tail:
        hub = port.accept()
        assert json.loads(hub.subscribed(10).removeprefix(b"SUBSCRIBE ")) == {"after": "now"}
        hub.send(odd, surrogate, deep)
        assert [tail.line(), tail.line(), tail.line()] == [odd, surrogate, deep]


def test_what_came_before_the_hubs_ok_is_not_shown(tmp_path: Path) -> None:
    """Those events are sent again after the OK, or were before the wanted place."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--after", "first", "--count", "1", "--config", config) as tail:
        hub = port.accept()
        assert b'"after":"first"' in hub.line()
        hub.send(event(7), b'GAP {"after":"1","before":"3","reason":"expired"}')
        hub.send(b'OK {"stream":"normal","after":"0"}', event(5))
        assert tail.end() == (0, event(5) + b"\n", "")


def test_a_hub_that_restarts_causes_no_miss_and_no_repeat(tmp_path: Path) -> None:
    """After each loss tail goes on behind the last event that it has shown, and says so once."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with notifyctl("tail", "normal", "--after", "4", "--count", "4", "--config", config) as tail:
        with port:
            hub = port.accept()
            assert b'"after":"4"' in hub.subscribed(4)
            hub.send(event(5), event(6))
            assert [tail.line(), tail.line()] == [event(5), event(6)]
        assert "lost" in tail.error_line()
        with Port(address=port.address) as port:
            hub = port.accept()
            assert b'"after":"6"' in hub.subscribed(6)
            assert "connected" in tail.error_line()
            hub.send(event(6), event(7))
            assert tail.line() == event(7)
            hub.send_raw(event(8)[:20])
            hub.close()
            assert "lost" in tail.error_line()
            hub = port.accept()
            assert b'"after":"7"' in hub.subscribed(7)
            hub.send(event(8))
            status, out, err = tail.end()
    assert (status, out) == (0, event(8) + b"\n")
    assert len(err.splitlines()) == 1


def test_tail_waits_for_a_hub_that_is_not_there_yet(tmp_path: Path) -> None:
    """It says once that it cannot connect, and begins when the hub is there."""
    with Port() as port:
        address = port.address
    config = write_config(tmp_path, normal=address[1])
    with notifyctl("tail", "normal", "--count", "1", "--config", config) as tail:
        assert "Connection refused" in tail.error_line()
        with Port(address=address) as port:
            hub = port.accept()
            hub.subscribed(1)
            hub.send(event(2))
            status, out, err = tail.end()
    assert (status, out) == (0, event(2) + b"\n")
    assert "connected to 127.0.0.1" in err


def test_a_registered_client_acknowledges_what_it_has_printed(tmp_path: Path) -> None:
    """One ACK a batch; after a loss it comes back under its name, and what it has shown is only acknowledged."""
    arguments = ("tail", "critical", "--name", "pager", "--after", "first", "--count", "4")
    with Port() as port, notifyctl(*arguments, "--config", write_config(tmp_path, critical=port.number)) as tail:
        hub = port.accept()
        asked = json.loads(hub.subscribed(0).removeprefix(b"SUBSCRIBE "))
        assert asked == {"name": "pager", "after": "first"}
        hub.send(event(3), event(4))
        assert hub.line() == b"ACK 4"
        assert [tail.line(), tail.line()] == [event(3), event(4)]
        hub.close()
        hub = port.accept()
        assert json.loads(hub.subscribed(0).removeprefix(b"SUBSCRIBE ")) == {"name": "pager"}
        hub.send(event(3), event(4))
        assert hub.line() == b"ACK 4"
        hub.send(event(5), event(6), event(7))
        # Of a batch of which not all is wanted, what was shown is acknowledged, and tail stays until it is read.
        assert [hub.line(), hub.line()] == [b"ACK 6", b"PING"]
        assert tail.popen.poll() is None
        hub.send(event(8), b"PONG")
        status, out, _ = tail.end()
    assert (status, out) == (0, event(5) + b"\n" + event(6) + b"\n")


def test_a_name_that_somebody_else_has_moved_on_is_told(tmp_path: Path) -> None:
    """Events that another client acknowledged under this name do not come here, and the person hears of it."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--name", "desk", "--config", config) as tail:
        port.accept().subscribed(5)
        port._connections[-1].close()
        assert "lost" in tail.error_line()
        port.accept().subscribed(9)
        assert "after 9, not after 5" in tail.error_line()


def test_several_streams_are_shown_together_and_counted_together(tmp_path: Path) -> None:
    """Without a word on the command line: normal, important and critical."""
    with Port() as normal, Port() as important, Port() as critical:
        ports = {"normal": normal.number, "important": important.number, "critical": critical.number}
        with notifyctl("tail", "--count", "3", "--config", write_config(tmp_path, **ports)) as tail:
            for offset, port in enumerate((critical, important, normal), 1):
                hub = port.accept()
                hub.subscribed(0)
                hub.send(event(offset))
                assert tail.line() == event(offset)
            assert tail.end() == (0, b"", "")


def test_a_gap_is_told_and_not_asked_for_again(tmp_path: Path) -> None:
    """On standard error, so that the lines in a pipe stay events."""
    config = write_config(tmp_path, all=(port := Port()).number)
    with port, notifyctl("tail", "all", "normal", "--since", "2026-11-22T10:00:00Z", "--config", config) as tail:
        hub = port.accept()
        assert b'"since":"2026-11-22T10:00:00Z"' in hub.subscribed(1, "all")
        hub.send(b'GAP {"after":"1","before":"8","reason":"expired"}')
        assert tail.error_line() == ("notifyctl: all: GAP: events after 1 and before 8 are no longer held (expired)")
        hub.close()
        assert b'"after":"7"' in port.accept().line()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"ERROR SUBSCRIBE: after is beyond the end of the log", "beyond the end of the log"),
        (b"ERROR the name pager belongs to stream critical", "belongs to stream critical"),
        (b"ERROR replaced", "another client has taken over"),
        (b"ERROR \x1b[2J", "\\x1b[2J"),
        (b"SSH-2.0-OpenSSH_9.2", "does not answer as a notify-hub does"),
        (b"OK {}", "does not answer as a notify-hub does"),
        (b"OK " + b" " * 140_000, "does not answer as a notify-hub does"),
        (b'OK {"stream":"normal","after":"1"}\n{"no":"offset"}', "is no event with an offset"),
        (b'OK {"stream":"normal","after":"1"}\nERROR replaced', "another client has taken over"),
    ],
)
def test_an_error_that_no_retry_can_mend_ends_tail(tmp_path: Path, answer: bytes, said: str) -> None:
    """One line that says why, and status 1."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--config", config) as tail:
        hub = port.accept()
        hub.line()
        hub.send(answer)
        status, out, err = tail.end()
    assert (status, out) == (1, b"")
    assert said in err
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


@pytest.mark.parametrize("answer", [b"ERROR too many subscribers", b'OK {"stream":"normal","after":"1"}\nERROR bye'])
def test_an_error_that_passes_is_tried_again(tmp_path: Path, answer: bytes) -> None:
    """A full hub, or one that is about to stop, is asked again; the reason is told."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--count", "1", "--config", config) as tail:
        hub = port.accept()
        hub.line()
        hub.send(answer)
        assert "the hub ended the connection: " + answer.partition(b"ERROR ")[2].decode() in tail.error_line()
        hub = port.accept()
        hub.subscribed(1)
        hub.send(event(2))
        assert tail.end()[:2] == (0, event(2) + b"\n")


@pytest.mark.parametrize("name", [(), ("--name", "desk")])
def test_ctrl_c_ends_tail_quietly(tmp_path: Path, name: tuple[str, ...]) -> None:
    """Status 130 and not a word, also for a registered client whose hub does not answer any more."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--config", config, *name) as tail:
        hub = port.accept()
        hub.subscribed(1)
        hub.send(event(2))
        assert tail.line() == event(2)
        tail.interrupt()
        assert tail.end() == (130, b"", "")


@pytest.mark.parametrize("more", [True, False])
def test_tail_ends_quietly_with_its_reader(tmp_path: Path, more: bool) -> None:
    """``tail | head`` ends at the next event, and also where no further event comes."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    with port, notifyctl("tail", "normal", "--config", config) as tail:
        hub = port.accept()
        hub.subscribed(1)
        hub.send(event(2))
        assert tail.line() == event(2)
        assert tail.popen.stdout is not None
        tail.popen.stdout.close()
        if more:
            hub.send(event(3))
        assert tail.popen.stderr is not None
        assert tail.popen.stderr.read() == b""
        assert tail.popen.wait(BOUND_S) == 0


def test_what_cannot_be_written_is_not_acknowledged(tmp_path: Path) -> None:
    """A full disk ends tail with one line, and the hub keeps the events for the name."""
    config = write_config(tmp_path, normal=(port := Port()).number)
    arguments = ("tail", "normal", "--name", "desk", "--config", config)
    with open("/dev/full", "wb") as full, port, notifyctl(*arguments, stdout=full.fileno()) as tail:
        hub = port.accept()
        hub.subscribed(1)
        hub.send(event(2))
        status, _, err = tail.end()
        assert hub.line() == b""
    assert status == 1
    assert err == "notifyctl: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("kind", ["unix", "tcp6", "every"])
def test_the_endpoints_in_a_hubs_file_are_found(tmp_path: Path, kind: str) -> None:
    """A listener on every interface is reached on loopback; IPv6 and UNIX sockets work too."""
    if kind == "unix":
        port = Port(socket.AF_UNIX, str(tmp_path / "normal"))
        endpoint = f"unix:{tmp_path / 'normal'}"
    elif kind == "tcp6":
        try:
            port = Port(socket.AF_INET6)
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        endpoint = f"tcp6:{port.number}"
    else:
        port = Port()
        endpoint = f"tcp:{port.number}:interface=0.0.0.0"
    with port, notifyctl("tail", "normal", "--count", "1", "--config", write_config(tmp_path, normal=endpoint)) as tail:
        hub = port.accept()
        hub.subscribed(1)
        hub.send(event(2))
        assert tail.end() == (0, event(2) + b"\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "desk"), "--name goes with exactly one STREAM"),
        (("--name", "desk", "normal", "critical"), "--name goes with exactly one STREAM"),
        (("--name", "a\x1bb", "normal"), "--name: has characters"),
        (("--after", "1", "--since", "2026-11-22T10:00:00Z"), "--after and --since exclude each other"),
        (("--after", "-1"), "--after: is no decimal string"),
        (("--since", "yesterday"), "--since: is no RFC 3339 time"),
        (("--count", "0"), "--count"),
        (("urgent",), "'urgent' is not one of"),
        (("--hub", "localhost", "--config", "hub.toml"), "--hub and --config exclude each other"),
        (("--hub", "localhost:1600"), "without a port"),
        (("--hub", "two words"), "is no host"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    """Status 2, and what is wrong."""
    status, out, err = run("tail", *arguments)
    assert (status, out) == (2, "")
    assert said.removeprefix("--name: ") in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("listeners", "said"),
    [
        ({"normal": 1600}, "listen.error: is not set, so the hub does not serve error"),
        ({"error": "systemd:domain=INET:index=0"}, "use --hub"),
        ({"error": "tcp:0"}, "another port at each start"),
        ({"error": "tcp:xyz"}, "listen.error: 'tcp:xyz' is no endpoint"),
        ({"eror": 1603}, "listen.eror: unknown key"),
    ],
)
def test_a_file_that_does_not_say_where_the_stream_is_ends_tail(
    tmp_path: Path, listeners: dict[str, int | str], said: str
) -> None:
    """One line with file and key, and status 1."""
    status, out, err = run("tail", "error", "--config", write_config(tmp_path, **listeners))
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


def _on_a_terminal(tmp_path: Path, *lines: bytes, arguments: tuple[str, ...] = (), **env: str) -> bytes:
    """Shows events on a pty, and gives what the terminal was sent until tail had ended."""
    port = Port()
    config = write_config(tmp_path, normal=port.number)
    shown, terminal = os.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "120", "LANG": "C.UTF-8", **env}
    count = ("--count", str(len(lines)))
    with (
        port,
        notifyctl("tail", "normal", *count, *arguments, "--config", config, stdout=terminal, env=environment) as tail,
    ):
        os.close(terminal)
        hub = port.accept()
        hub.subscribed(1)
        hub.send(*lines)
        received, deadline = b"", time.monotonic() + BOUND_S
        while data := read_some(shown, deadline):
            received += data
        assert tail.end()[0] == 0
    os.close(shown)
    return received


HOSTILE = "boo \x1b[2J\x1b]0;owned\x07 \x9b31m \u202eevil\u2069 \x7f\r\b [red]markup[/red] :smile:"


def test_a_person_at_a_terminal_sees_a_table_in_colour(tmp_path: Path) -> None:
    """Time, priority in colour, source, type, text, and what the hub looked up."""
    data = {"line": "ALARM 7 fire", "context": {"zone": {"location": "North", "responder": "Ann"}}}
    shown = _on_a_terminal(tmp_path, event(2, priority="critical", data=data), TZ="UTC").decode()
    assert "\x1b[" in shown
    for text in ("10:00:00", "critical", "/ward3/panel", "panel.alarm", "ALARM 7 fire", "zone: location=North"):
        assert text in shown
    assert "{" not in shown


def test_no_event_can_command_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, whatever attribute they stand in, are shown and not obeyed; so is markup."""
    data = {"line": HOSTILE, "context": {HOSTILE: {HOSTILE: HOSTILE}}, "unavailable": [HOSTILE]}
    attributes = {"source": HOSTILE, "type": HOSTILE, "priority": HOSTILE, "reason": HOSTILE, "time": HOSTILE}
    shown = _on_a_terminal(
        tmp_path, event(2, data=data, **attributes), event(3, data=[HOSTILE]), NO_COLOR="1", COLUMNS="2000"
    )
    text = shown.decode()
    # Without colour the terminal is sent no escape at all but those for bold and dim text.
    for harmless in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\r\n"):
        text = text.replace(harmless, "")
    assert text.replace("\n", "").isprintable()
    assert "\\x1b[2J" in text
    assert "[red]markup[/red] :smile:" in text


def test_json_on_a_terminal_means_the_same_and_commands_nothing(tmp_path: Path) -> None:
    """Characters that a terminal would obey are written as JSON escapes."""
    line = json.dumps({"offset": "2", "data": {"line": HOSTILE + "\U000e0001"}}, ensure_ascii=False).encode()
    shown = _on_a_terminal(tmp_path, line, arguments=("--json",)).decode()
    assert shown.rstrip("\r\n").isprintable()
    assert json.loads(shown) == json.loads(line)
