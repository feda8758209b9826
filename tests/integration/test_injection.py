"""Whatever stands in an event: lookups, rules, storms and filters take it as a value, and no other event suffers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import Client, Hub
from tests.integration.test_memory import MOST_MIB

SETTINGS = """
default_priority = "normal"

[[lookup]]
name = "zone"
sql = "SELECT location, priority FROM zone WHERE zone = :zone"

[[lookup]]
name = "twice"
sql = "SELECT location FROM zone WHERE zone = :zone OR location = :zone ORDER BY location LIMIT 1"

[[lookup]]
name = "type"
sql = "SELECT location FROM zone WHERE zone = :type"

[[lookup]]
name = "source"
sql = "SELECT location FROM zone WHERE zone = :source"

[[lookup]]
name = "id"
sql = "SELECT location FROM zone WHERE zone = :id"

[[rule]]
where = { "fields.zone" = "never", "fields.zone.0.a" = "x" }
priority = "critical"

[[rule]]
where = { "fields.zone" = { ">" = 1e300 } }
priority = "important"

[[rule]]
where = { "fields.zone" = { glob = "*[!a]*nowhere*" } }
priority = "critical"

[[rule]]
priority_from = "context.zone.priority"

[[suppress]]
type = "storm"
by = ["type", "fields.zone", "fields.zone.0.0", "context.echo.zone"]
window = "1h"

[filter]
factory = "echo:Echo"
"""

ECHO = """
class Echo:
    def preprocess(self, event):
        fields = event.data.get("fields")
        zone = fields.get("zone") if hasattr(fields, "get") else None
        return {"echo": {"zone": zone if isinstance(zone, str) and zone.isascii() else type(zone).__name__}}

    def characterise(self, event):
        return None
"""

TEXTS = [
    "'; DROP TABLE zone; --", '"; DROP TABLE zone; --', "7'; DELETE FROM event; SELECT '", "7' OR '1'='1", "\\'; --",
    ":zone", ":zone::text", "$1", "%s", "%(zone)s", "%", "?", "?1", "@zone", "{zone}", "E'\\x00'", "/*", "*/", "--",
    "7) UNION SELECT body FROM event; --", "CAST(1 AS text)", " ", "\t\r", "\u2028", "\ufeff", "\U0001f600", "e\u0301",
    "x" * 60_000, "\u00e9" * 29_000, "'" * 30_000, "NaN", "Infinity", "-0", "1e999", "9" * 5_000, "never" * 5_000,
]  # fmt: skip
"""As JSON writes them they may be in any attribute."""

DATA = [
    '"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0027; DROP TABLE zone; --\\u0000"',
    "1" * 30, "1" * 4_299, "1" * 5_000, "-" + "9" * 60_000, "9223372036854775808", "1e308", "1e999", "-1e999", "1e-999",
    "0." + "1" * 10_000, "-0", "-0.0", "true", "false", "null", "[]", "{}", '[[["x"]]]', '{"0":{"0":"x"}}',
    "[" * 990 + "]" * 990, '{"a":' * 900 + "1" + "}" * 900, '["' + "x" * 50_000 + '"]',
    '{"zone":"\'; DROP TABLE zone; --"}', '{"\\u0000":1}', '{"\\ud800":1}', '{"":""}',
]  # fmt: skip
"""JSON for a place in ``data``, where more is allowed."""

REFUSED = ['"\\u0000"', '"\\ud800"', "7", "{}", "NaN", "[" * 2_000]
"""JSON that makes an event none where it stands in ``type``, ``source`` or ``id``; NaN and 2,000 levels do anywhere."""


@pytest.fixture(params=["sqlite", "postgresql"])
def ward(request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., Any]) -> Hub:
    """A hub whose lookups ask the log's own database, in which there is a table of zones."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "echo.py").write_text(ECHO)
    hub: Hub = start(Hub, tmp_path, SETTINGS, url=url)
    hub.env = {"PYTHONPATH": str(tmp_path / "code")}
    hub.start()
    execute(hub, "CREATE TABLE zone (zone TEXT PRIMARY KEY, location TEXT, priority TEXT)")
    execute(hub, "INSERT INTO zone VALUES ('7', 'Kitchen', 'critical'), ('8', 'Hall', 'normal')")
    return hub


def execute(hub: Hub, sql: str) -> None:
    """Runs a statement in the log's database."""
    import psycopg

    if hub.url is not None:
        with psycopg.connect(hub.url) as session:
            session.execute(sql.encode())
        return
    with contextlib.closing(sqlite3.connect(hub.database, timeout=30)) as connection, connection:
        connection.execute(sql)


def line(data: str = "{}", **attributes: str) -> str:
    """Gives an event line from pieces of JSON."""
    members = {"id": '"1"', "source": '"/s"', "type": '"t"', **attributes, "data": data}
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


def good(number: int) -> str:
    """Gives a line of an event about which the database knows something."""
    return line('{"fields":{"zone":"7"}}', id=f'"good-{number}"', type='"good"')


def hostile_lines() -> list[str]:
    """Gives acceptable lines, with each value in each place that takes it."""
    texts = [json.dumps(text) for text in TEXTS]
    lines = [line(f'{{"fields":{{"zone":{value}}}}}') for value in texts + DATA]
    lines += [line(f'{{"fields":{value}}}') for value in texts + DATA]
    lines += [line(value) for value in texts + DATA]
    lines += [line(f'{{"context":{{"zone":{{"priority":"critical"}}}},"fields":{{"zone":{value}}}}}') for value in DATA]
    for name in ("id", "source", "type", "subject", "priority", "traceparent"):
        lines += [line(**{name: value}) for value in texts if len(value) > 3]
    for value in texts + DATA:
        lines += [line(f'{{"fields":{{"zone":{value}}}}}', type='"storm"')] * 2
    return [each for each in lines if len(each.encode()) <= 65_536]


def test_hostile_values_are_values_and_nothing_else(ward: Hub) -> None:
    """SQL, NUL, surrogates, depth and size in every bound place: stored, answered, and no other event is spoilt."""
    hostile = hostile_lines()
    assert len(hostile) > 400
    with Client(ward.ports["critical"]) as client, Client(ward.ports["ingest"]) as producer:
        client.subscribe(after="now")
        sent = 0
        for number, each in enumerate(hostile):
            producer.send(each, good(number))
            sent += 2
            while (answer := producer.line()) != f"ACK {sent}":
                assert answer.startswith("ACK "), (answer, each[:200])
            event = client.event()
            assert event["id"] == f"good-{number}", (event, each[:200])
            assert event["data"]["context"]["zone"] == {"location": "Kitchen", "priority": "critical"}
            assert "unavailable" not in event["data"]
    assert ward.process is not None
    assert ward.process.alive
    assert "Traceback" not in ward.process.text, ward.process.text[-3000:]
    assert "is lost" not in ward.process.text
    assert ward.process.text.count("cannot be used") <= 5  # one line a minute for each lookup
    assert ward.rows("SELECT zone, location FROM zone ORDER BY zone") == [("7", "Kitchen"), ("8", "Hall")]
    assert ward.rows("SELECT count(*) FROM event WHERE source <> '/hub/ingest'") == [(sent,)]
    repeated = sum(row[0] for row in ward.rows("SELECT repeated FROM suppression"))
    assert ward.rows("SELECT count(*) FROM event WHERE suppressed") == [(repeated,)]
    assert repeated > len(TEXTS)


def test_lines_that_are_no_events_are_refused_one_by_one(ward: Hub) -> None:
    """NUL and surrogates in an attribute, NaN and too much depth anywhere: REJECT, kept as an error, and on it goes."""
    lines = [line(**{name: value}) for name in ("id", "source", "type") for value in REFUSED]
    lines += [line(f'{{"fields":{{"zone":{value}}}}}') for value in ("NaN", "Infinity", "[" * 2_000)]
    with Client(ward.ports["critical"]) as client, Client(ward.ports["ingest"]) as producer:
        client.subscribe(after="now")
        for number, each in enumerate(lines):
            producer.send(each, good(number))
            answers = [producer.line()]
            while not answers[-1].endswith(f"ACK {2 * number + 2}"):
                answers.append(producer.line())
            assert answers[0].startswith(f"REJECT {2 * number + 1} "), each[:100]
            assert client.event()["id"] == f"good-{number}"
    assert ward.rows("SELECT count(*) FROM event WHERE type = 'notifyd.rejected'") == [(len(lines),)]


def test_a_line_of_a_mebibyte_ends_its_connection_and_nothing_else(ward: Hub) -> None:
    """A value of 1 MiB is over the limit of a line: ERROR for its producer, nothing for anyone else."""
    with Client(ward.ports["critical"]) as client, Client(ward.ports["ingest"]) as producer:
        client.subscribe(after="now")
        with contextlib.suppress(ConnectionError):
            producer.send(good(1), line(json.dumps({"fields": {"zone": "x" * 2**20}})))
        assert list(producer.lines())[-1].startswith("ERROR a line is longer than 65536 bytes")
        assert client.event()["id"] == "good-1"
        with Client(ward.ports["ingest"]) as other:
            other.send(good(2))
            assert other.line() == "ACK 1"
        assert client.event()["id"] == "good-2"


KEYS = 20_000
"""Of 10 KiB: twelve times what a lookup's answers may take in memory."""


def test_keys_that_are_ever_new_do_not_fill_the_memory(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Hundreds of megabytes of hostile keys go through a lookup's cache in bounded memory."""
    settings = """
        [[lookup]]
        name = "zone"
        sql = "SELECT 1 AS one WHERE :zone <> ''"
        [[rule]]
        type = "flood"
        drop = true
    """
    hub = start(Hub, tmp_path, settings)
    process = hub.start()
    most = 0.0
    with Client(hub.ports["ingest"]) as producer:
        for number in range(0, KEYS, 100):
            keys = [f"{each}-" + "\u00e9" * 5_000 for each in range(number, number + 100)]
            data = [json.dumps({"fields": {"zone": key}}, ensure_ascii=False) for key in keys]
            producer.send(*(line(each, type='"flood"') for each in data))
            while producer.line() != f"ACK {number + 100}":
                pass
            most = max(most, process.memory_mib())
    assert most < MOST_MIB
    process.stop()
    assert f"'rule 1' has discarded {KEYS} events" in process.text
