"""Every row of the table of bad input, against a hub that runs as a process."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration import rig
from tests.integration.rig import Client, Hub, on_both


def event(**attributes: Any) -> str:
    """Gives an event line that is acceptable unless the attributes say otherwise; None leaves one out."""
    document = {"id": "1", "source": "/test", "type": "test", "priority": "normal", **attributes}
    return json.dumps({name: value for name, value in document.items() if value is not None})


NOT_ACCEPTABLE: list[tuple[str, bytes, str]] = [
    ("no JSON", b"what is this", "no JSON object"),
    ("an array", b"[1, 2]", "no JSON object"),
    ("a broken object", b'{"id": "1",', "no valid JSON"),
    ("two objects", b'{"id":"1","source":"s","type":"t"} {}', "no valid JSON"),
    ("no id", event(id=None).encode(), "id is missing"),
    ("a null id", b'{"id":null,"source":"s","type":"t"}', "id is missing"),
    ("an empty source", event(source="").encode(), "source is empty"),
    ("a number as type", event(type=5).encode(), "type is not a string"),
    ("a time that is none", event(time="yesterday").encode(), "no RFC 3339 time"),
    ("a day that is none", event(time="2026-02-30T00:00:00Z").encode(), "no RFC 3339 time"),
    ("NaN", event(data={"x": 0}).replace(": 0", ": NaN").encode(), "no valid JSON"),
    ("Infinity", event(data={"x": 0}).replace(": 0", ": -Infinity").encode(), "no valid JSON"),
    ("invalid UTF-8", b'{"id":"\xff","source":"s","type":"t"}', "invalid UTF-8"),
    ("a NUL in an attribute", event(source="a\0b").encode(), "NUL in attribute source"),
    ("an unpaired surrogate", b'{"id":"1","source":"\\ud800","type":"t"}', "unpaired surrogate in attribute source"),
    ("10,000 levels", b'{"id":"1","source":"s","type":"t","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested"),
    ("10,000 open brackets", b'{"id":"1","source":"s","type":"t","data":' + b"[" * 10_000, "nested"),
]


@on_both
def test_a_line_that_is_no_acceptable_event_is_refused_kept_and_told(hub: Hub) -> None:
    """Each refused line is answered with REJECT and its number, kept as an error event, and the connection goes on."""
    with Client(hub.ports["error"]) as watcher, Client(hub.ports["ingest"]) as producer:
        watcher.subscribe(after="now")
        for number, (what, line, reason) in enumerate(NOT_ACCEPTABLE, 1):
            producer.send(line)
            answer = producer.line()
            assert answer.startswith(f"REJECT {number} "), (what, answer)
            assert reason in answer, (what, answer)
            assert producer.line() == f"ACK {number}"
            kept = watcher.event()
            assert (kept["type"], kept["source"], kept["priority"]) == ("notifyd.rejected", "/hub/ingest", "error")
            assert kept["id"] == kept["offset"]
            assert reason in kept["reason"]
            data = kept["data"]
            if "raw" in data:
                assert line.startswith(__import__("base64").b64decode(data["raw"])), what
            else:
                assert data["line"].encode() == line[: 8 * 1024], what
            assert data.get("truncated", False) == (len(line) > 8 * 1024), what
        producer.send(event(id="good"))
        assert producer.line() == f"ACK {len(NOT_ACCEPTABLE) + 1}"


@on_both
def test_data_may_hold_what_an_attribute_may_not(hub: Hub) -> None:
    """NUL, unpaired surrogates, 1,000 levels and huge numbers in data go through as they were written."""
    values = ["\\u0000", "\\ud800", "é€😀"]
    lines = [b'{"id":"1","source":"s","type":"t","priority":"normal","data":{"x":"%s"}}' % v.encode() for v in values]
    lines.append(b'{"id":"1","source":"s","type":"t","priority":"normal","data":' + b"[" * 999 + b"]" * 999 + b"}")
    lines.append(b'{"id":"1","source":"s","type":"t","priority":"normal","data":{"x":123456789012345678901234567890}}')
    with Client(hub.ports["normal"]) as watcher, Client(hub.ports["ingest"]) as producer:
        watcher.subscribe(after="now")
        producer.send(*lines)
        while (answer := producer.line()) != f"ACK {len(lines)}":
            assert answer.startswith("ACK"), answer
        for line in lines:
            value = line.partition(b'"data":')[2][:-1]
            assert value.decode().strip("{}") in watcher.line()


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_a_line_over_the_limit_ends_the_connection_after_what_came_before_it(hub: Hub, ending: bytes) -> None:
    """65,537 bytes are too many, with or without the LF; the event before is stored and acknowledged first."""
    with Client(hub.ports["ingest"]) as producer:
        producer.send(event(id="before"))
        producer.socket.sendall(b"x" * 65_537 + b"x" * (70_000 if not ending else 0) + ending)
        assert list(producer.lines()) == ["ACK 1", "ERROR a line is longer than 65536 bytes"]
    assert hub.rows("SELECT id FROM event") == [("before",)]
    assert hub.process is not None
    hub.process.stop()
    assert hub.process.text.count("The producer at") == 1


@on_both
def test_a_line_of_exactly_the_limit_is_an_event(hub: Hub) -> None:
    """65,536 bytes, not counting the line end, are not too many."""
    line = event(data={"x": ""}).encode()
    line = line.replace(b'"x": ""', b'"x": "' + b"y" * (65_536 - len(line)) + b'"')
    assert len(line) == 65_536
    with Client(hub.ports["normal"]) as watcher, Client(hub.ports["ingest"]) as producer:
        watcher.subscribe(after="now")
        producer.send(line + b"\r")
        assert producer.line() == "ACK 1"
        assert watcher.event()["data"]["x"][:3] == "yyy"


def test_the_hub_stays_small_whatever_is_sent(hub: Hub) -> None:
    """Endless lines, floods of nothing and floods of garbage on many connections stay below 150 MiB."""
    assert hub.process is not None
    floods = [b"x" * 1_000_000, b"\n" * 1_000_000, b"PING\n" * 20_000, b"{\n" * 200, event().encode() * 12_000]
    clients = [Client(hub.ports["ingest"]) for _ in range(20)] + [Client(hub.ports["normal"]) for _ in range(5)]
    most = 0.0
    for index, client in enumerate(clients):
        client.socket.setblocking(False)
        data = floods[index % len(floods)]
        for _ in range(20 if data[:1] in (b"x", b"\n") else 1):  # what costs the hub work is sent once
            try:
                client.socket.send(data)
            except (BlockingIOError, ConnectionError):
                break
            most = max(most, hub.process.memory_mib())
    with Client(hub.ports["ingest"]) as producer:
        producer.send(event(id="still-here"))
        assert producer.line() == "ACK 1"
    most = max(most, hub.process.memory_mib())
    for client in clients:
        client.close()
    assert most < 150, most


@pytest.mark.parametrize(
    ("port", "lines", "reason"),
    [
        ("ingest", ["FOO"], "FOO is no verb"),
        ("ingest", ["SUBSCRIBE {}"], "SUBSCRIBE is no verb"),
        ("ingest", ["ACK 1"], "ACK is no verb"),
        ("ingest", ["PING now"], "no argument"),
        ("ingest", ['HELLO {"agent":"a","spool":"s"}', 'HELLO {"agent":"a","spool":"s"}'], "twice"),
        ("ingest", [event(), 'HELLO {"agent":"a","spool":"s"}'], "first"),
        ("ingest", ["HELLO"], "JSON object"),
        ("ingest", ["HELLO {"], "HELLO"),
        ("ingest", ["HELLO []"], "HELLO"),
        ("ingest", ['HELLO {"agent":"a"}'], "spool"),
        ("ingest", ['HELLO {"agent":"","spool":"s"}'], "agent"),
        ("ingest", ['HELLO {"agent":5,"spool":"s"}'], "HELLO"),
        ("normal", [event()], "verbs only"),
        ("normal", ["hello"], "verbs only"),
        ("normal", ['HELLO {"agent":"a","spool":"s"}'], "HELLO is no verb"),
        ("normal", ["ACK 1"], "name"),
        ("normal", ["SUBSCRIBE"], "JSON object"),
        ("normal", ["SUBSCRIBE {"], "SUBSCRIBE"),
        ("normal", ['SUBSCRIBE {"after":5}'], "SUBSCRIBE"),
        ("normal", ['SUBSCRIBE {"after":"-1"}'], "decimal"),
        ("normal", ['SUBSCRIBE {"after":"x"}'], "decimal"),
        ("normal", ['SUBSCRIBE {"after":"\u0661"}'], "decimal"),
        ("normal", ['SUBSCRIBE {"after":"99999999999999999"}'], "beyond"),
        ("normal", ['SUBSCRIBE {"after":"' + "9" * 5000 + '"}'], "beyond"),
        ("normal", ['SUBSCRIBE {"since":"yesterday"}'], "RFC 3339"),
        ("normal", ['SUBSCRIBE {"name":""}'], "name"),
        ("normal", ["SUBSCRIBE {}", "SUBSCRIBE {}"], "twice"),
        ("normal", ['SUBSCRIBE {"name":"n"}', "ACK 99999999999999999"], "beyond"),
        ("normal", ['SUBSCRIBE {"name":"n"}', "ACK x"], "decimal"),
        ("normal", ["x" * 70_000], "longer"),
    ],
)
def test_a_broken_rule_of_the_protocol_ends_the_connection_with_a_reason(
    hub: Hub, port: str, lines: list[str], reason: str
) -> None:
    """A verb that the port does not know, at the wrong time or malformed gets ERROR, and the connection is closed."""
    with Client(hub.ports[port]) as client:
        client.send(*lines)
        last = list(client.lines())[-1]
    assert last.startswith("ERROR "), last
    assert reason in last, last


def test_a_priority_of_another_word_makes_an_error_event_that_names_it(hub: Hub) -> None:
    """`urgent` is none of the three: the event goes to the error port with the word in its reason."""
    with Client(hub.ports["error"]) as watcher, Client(hub.ports["ingest"]) as producer:
        watcher.subscribe(after="now")
        producer.send(event(id="u", priority="urgent"), event(id="e", priority="error"), event(id="n", priority=7))
        for id_, word in (("u", '"urgent"'), ("e", '"error"'), ("n", "7")):
            kept = watcher.event()
            assert (kept["id"], kept["priority"], kept["rule"]) == (id_, "error", "default")
            assert word in kept["reason"]


@pytest.mark.parametrize("daemon", ["notify-hub", "notify-agent"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nonsense = 1\n", "nonsense"),
        ("state = 5\n", "state"),
        ("x = \n", "TOML"),
        ('[own_events]\npriority = "urgent"\n', "own_events.priority"),
        (None, "No such file"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, daemon: str, text: str | None, key: str
) -> None:
    """One line on standard error with file, key and reason; exit status 1; nothing is opened."""
    path = tmp_path / "wrong.toml"
    if text is not None:
        source = '[[source]]\nname = "a"\nport = "/dev/null"\n' if daemon == "notify-agent" else ""
        path.write_text(f"{text}{source}")
    twistd = Path(sys.executable).with_name("twistd")
    done = subprocess.run(
        [twistd, "-n", "--pidfile=", daemon, "--config", path],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(path) in done.stderr
    assert key in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_taken_ends_the_hub_with_a_clear_line(tmp_path: Path, start: Any) -> None:
    """Exit status 1, and the line names the port."""
    hub = start(Hub, tmp_path)
    with socket.create_server(("127.0.0.1", hub.ports["critical"])):
        process = hub.start(wait=False)
        assert process.wait() == 1
    assert str(hub.ports["critical"]) in process.text
    assert "Traceback" not in process.text


def test_a_second_hub_on_the_same_state_ends_with_a_clear_line(hub: Hub, start: Any) -> None:
    """The first goes on; the second says who has the folder."""
    assert hub.process is not None
    second = rig.Process(hub.process.popen.args, hub.folder)  # type: ignore[arg-type]
    assert second.wait() == 1
    assert f"another process ({hub.process.popen.pid})" in second.text
    assert hub.process.alive


def test_a_state_folder_that_cannot_be_written_ends_the_hub_with_a_clear_line(tmp_path: Path, start: Any) -> None:
    """A file where the folder should be: nothing can ever be stored, so the status is 1."""
    hub = start(Hub, tmp_path)
    hub.state.write_text("in the way")
    process = hub.start(wait=False)
    assert process.wait() == 1
    assert "cannot be written" in process.text
    assert "Traceback" not in process.text


def test_a_corrupt_log_ends_the_hub_with_a_clear_line(hub: Hub) -> None:
    """The hub never begins a log anew by itself: what is in it may be all there is."""
    assert hub.process is not None
    hub.process.stop()
    hub.database.write_bytes(b"this is no database" * 1000)
    process = hub.start(wait=False)
    assert process.wait() == 1
    assert "is corrupt" in process.text
    assert "Traceback" not in process.text


def test_a_log_that_is_deleted_under_the_hub_ends_it(hub: Hub) -> None:
    """What is written to a deleted file would be gone at the next start: it is not acknowledged."""
    assert hub.process is not None
    hub.database.unlink()
    with Client(hub.ports["ingest"]) as producer:
        producer.send(event())
        assert not [line for line in producer.lines() if line.startswith("ACK")]
    assert hub.process.wait() == 1
    assert "deleted or replaced" in hub.process.text


def test_a_write_ahead_log_that_is_deleted_under_the_hub_ends_it(hub: Hub) -> None:
    """SQLite would go on in the deleted file: nothing more is acknowledged, and the status is 1."""
    assert hub.process is not None
    with Client(hub.ports["ingest"]) as producer:
        producer.send(event(id="before"))
        assert producer.line() == "ACK 1"
        hub.database.with_name("hub.db-wal").unlink()
        producer.send(event(id="after"))
        assert not [line for line in producer.lines() if line.startswith("ACK")]
    assert hub.process.wait() == 1


@pytest.mark.parametrize("what", ["CREATE TABLE event (x)", "CREATE TABLE schema_version (x)", None])
def test_a_database_of_another_program_ends_the_hub_with_a_clear_line(tmp_path: Path, start: Any, what: str) -> None:
    """Foreign tables, or a folder of that name: no retry can help, so the status is 1."""
    hub = start(Hub, tmp_path)
    hub.state.mkdir()
    if what is None:
        hub.database.mkdir()
    else:
        other = sqlite3.connect(hub.database)
        other.execute(what)
        other.close()
    process = hub.start(wait=False)
    assert process.wait() == 1
    assert str(hub.database) in process.text
    assert "Traceback" not in process.text


def test_a_locked_database_stops_the_acknowledgements_only_for_as_long(hub: Hub) -> None:
    """While another program holds the lock nothing is acknowledged, PING is answered, and it goes on by itself."""
    other = sqlite3.connect(hub.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert hub.process is not None
    with Client(hub.ports["ingest"]) as producer, Client(hub.ports["normal"]) as watcher:
        watcher.subscribe(after="now")
        producer.send(event(id="waits"), "PING")
        assert producer.line() == "PONG"
        hub.process.wait_for("The database cannot be used")
        producer.send("PING")
        assert producer.line() == "PONG"
        other.execute("COMMIT")
        other.close()
        assert producer.line() == "ACK 1"
        assert watcher.event()["id"] == "waits"
    assert hub.process.text.count("The database cannot be used") == 1
    hub.process.wait_for("The database can be used again")


def test_a_full_disk_stops_the_acknowledgements_only_for_as_long(tmp_path: Path, start: Any) -> None:
    """With the limit of a file's size reached nothing is acknowledged; with the limit lifted everything goes on."""
    import resource

    hub = start(Hub, tmp_path)
    process = hub.start()
    pid = process.popen.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    with Client(hub.ports["ingest"]) as producer:
        producer.send(event(id="first"))
        assert producer.line() == "ACK 1"
        size = hub.database.with_name("hub.db-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, limits[1]))
        producer.send(*[event(id=str(n), data={"x": "y" * 1000}) for n in range(100)])
        process.wait_for("The database cannot be used")
        assert hub.rows("SELECT count(*) FROM event") == [(1,)]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        deadline = time.monotonic() + rig.TIMEOUT
        while (answer := producer.line()) != "ACK 101":
            assert answer.startswith("ACK"), answer
            assert time.monotonic() < deadline
    assert hub.rows("SELECT count(*) FROM event") == [(101,)]
    assert process.alive
