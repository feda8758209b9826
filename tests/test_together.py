"""What is done for many events at once gives what doing it for each of them would give."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from notifyd import event as events
from notifyd import manyevents, wire
from notifyd.config_hub import parse_hub
from notifyd.event import Event, NotAcceptableError
from notifyd.hub import intake, settle
from notifyd.hub.classify import Classifier
from notifyd.hub.draft import Draft
from notifyd.hub.express import PASSED_OVER, Express
from notifyd.hub.intake import Counters, Intake, Parcel, Refusal
from notifyd.hub.records import Batch
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spool
from notifyd.hub.unclassified import Unclassified
from notifyd.times import are_rfc3339, is_rfc3339
from tests.conftest import Logged
from tests.hubkit import T0, Hub

TIMES = [
    "2026-11-22T10:00:00.000000Z", "2026-11-22T10:00:00.123456Z", "2026-11-22T10:00:00.12345Z0",
    "2026-02-30T10:00:00.000000Z",
    "2026-11-22T10:00:00Z", "2026-11-22t10:00:00.5+01:00", "2026-11-22T10:00:00.00000\u0661Z",
    "2026-11-22T10:00:00.000000z", "",
]  # fmt: skip
USUAL = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "time": TIMES[0], "data": {"line": "x"}}

values: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["7", "", "ü", "\0", 7, None]),
        "source": st.sampled_from(["/b", "", None]),
        "type": st.sampled_from(["alarm", "notifyd.frame.damaged"]),
        "time": st.sampled_from([*TIMES, None, 7]),
        "specversion": st.sampled_from(["1.0", "0.3", None]),
        "priority": st.sampled_from(["normal", "important", "critical", "error", "high", None, 3]),
        "sequence": st.sampled_from(["1", "2", "03", "", "x", "9" * 19, "9" * 41, "\u0661", None, 4]),
        "data": st.sampled_from([{}, {"level": "critical"}, {"level": "none"}, 5, "text", [1], None, {"line": "\0"}]),
        "offset": st.just("5"),
        "reason": st.sampled_from(["mine", None]),
        "rule": st.just("mine"),
        "subject": st.just("s"),
        "extra": st.just({"x": [1]}),
    },
)
odd = st.sampled_from(
    [b"nonsense", b"{", b'{"id":"1","source":"/a","type":"t"}{}', b'{"id":"\xff","source":"a","type":"t"}']
)
separators = st.sampled_from([(",", ":"), (", ", ": ")])


@st.composite
def lines(draw: st.DrawFn) -> list[bytes]:
    """Draws event lines, most of them usual ones with ascending sequences."""
    found = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        if draw(st.integers(0, 9)) == 0:
            found.append(draw(odd))
            continue
        event = {**USUAL, "id": f"s-{number}", "sequence": f"{number:020}", "priority": "normal"}
        event |= draw(values) if draw(st.integers(0, 3)) == 0 else {}
        found.append(json.dumps(event, ensure_ascii=draw(st.booleans()), separators=draw(separators)).encode())
    return found


def members(line: bytes) -> list[tuple[str, Any]]:
    """Gives the members of an object, also those that come twice, in an order of their own."""
    pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
    return sorted(pairs, key=lambda pair: (pair[0], str(pair[1])))


def outcome(line: bytes) -> bytes | str:
    """Gives what a line is as the hub would pass it on, or why it is refused."""
    try:
        return events.encode(events.decode(line))
    except NotAcceptableError as error:
        return str(error)


@given(lines())
def test_lines_are_decoded_together_as_each_would_be(some: list[bytes]) -> None:
    """Or not at all, where one of them is not as most are."""
    together = manyevents.decode_all(some)
    if together is not None:
        assert [events.encode(event) for event in together] == [outcome(line) for line in some]
        assert manyevents.encode_all(together) == manyevents.join_lines([events.encode(event) for event in together])


@pytest.mark.parametrize("size", [100, 2_000, 60_000])
def test_usual_lines_are_decoded_together_whatever_their_length(size: int) -> None:
    """A bound on nesting does not cost lines that are long, and flat."""
    line = json.dumps({**USUAL, "data": {"line": "x" * size, "fields": {"a": [1, {"b": 2}]}}}).encode()
    assert manyevents.decode_all([line] * 3) is not None
    assert manyevents.decode_all([line, line[:-1] + b',"deep":' + b"[" * 1_500 + b"]" * 1_500 + b"}"]) is None


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.booleans())
def test_sizes_are_right_however_lines_were_padded(padding: list[int], first_is_short: bool) -> None:
    """White space between members is not encoded again: how long a line was says nothing then."""
    if first_is_short:
        padding[0] = 0
    some = [json.dumps(USUAL).encode()[:-1] + b" " * each + b"}" for each in padding]
    found = [events.decode(line) for line in some]
    assert manyevents.encode_all(found, some) == manyevents.encode_all(found)


def test_sizes_that_would_take_one_line_end_twice_are_not_believed() -> None:
    """Lines of 3,000, 2,794 and 3,206 bytes that are 206 each when they are encoded."""
    found = [Event(id=str(n), source="/a", type="t", data=events.Raw(b'{"a":"%b"}' % (b"x" * 154))) for n in range(3)]
    data, sizes = manyevents.encode_all(found)
    assert sizes == [206] * 3
    assert manyevents.encode_all(found, [b"x" * 3_000, b"x" * 2_794, b"x" * 3_206]) == (data, sizes)


def test_white_space_between_values_does_not_tear_lines() -> None:
    """A line end in data, which a database's answer may bring, is seen: such events are encoded one by one."""
    event = Event(id="1", source="/a", type="t", data=events.Raw(b'{"a":\n1}'))
    assert manyevents.encode_all([event, event]) == manyevents.join_lines([events.encode(event)] * 2)


@given(st.lists(st.sampled_from(TIMES) | st.text(max_size=28), max_size=6))
def test_times_are_judged_together_as_each_would_be(texts: list[str]) -> None:
    """All have to be times."""
    assert are_rfc3339(texts) == all(map(is_rfc3339, texts))


# --- intake and settling -------------------------------------------------------------------------------------

RULES = """
[[rule]]
type = "alarm"
priority = "critical"
set = { subject = "ours", unit = "s" }
[[rule]]
priority_from = "level"
[[rule]]
source = "/b"
drop = true
"""


class Speaker:
    """A producer that said HELLO, or did not."""

    agent = "ward3"

    def __init__(self, spool: Spool | None) -> None:
        self.spool = spool

    def stored(self, parcels: Sequence[Parcel]) -> None:
        """Is never called here."""


def take(some: list[bytes], spooled: bool, rules: str, *, express: bool = False) -> tuple[Any, ...]:
    """Gives everything that an intake and a settler make of two parcels with the same lines."""
    spool = Spool("s") if spooled else None
    counters = Counters()
    told: list[Any] = []
    unclassified = Unclassified(Clock())
    unclassified.tell = lambda event, reason: told.append((event.id, reason))  # type: ignore[method-assign]  # a spy
    settler = Settler(
        classifier=Classifier(parse_hub(rules, "hub.toml").rule, events.Priority.ERROR),
        suppressor=None,
        unclassified=unclassified,
        counters=counters,
        last=10,
    )
    batch = Batch()
    parcels = [Parcel(Speaker(spool), some, float(T0), 1 + n * len(some)) for n in range(2)]
    quick = Express(settler.classifier, settler, counters)
    for parcel in parcels:
        if express and quick.take(parcel, batch):
            continue
        items: list[Draft | Refusal] = []
        Intake(counters).read(parcel, items)
        settler.settle(items, None, float(T0), batch)
    rows = [(entry.row()[:9], members(entry.line), entry.row()[10:], entry.position) for entry in batch.entries]
    known = None if spool is None else spool.known
    kept = [(parcel.rejects, parcel.positions) for parcel in parcels]
    return rows, kept, known, counters, told, settler.last


@settings(max_examples=300, deadline=None)
@given(lines(), st.booleans(), st.sampled_from(["", RULES]))
def test_events_are_settled_together_as_each_would_be(some: list[bytes], spooled: bool, rules: str) -> None:
    """Repeats, refusals, discarded and unclassified ones included."""
    together = take(some, spooled, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manyevents, "decode_all", lambda lines: None)
        patch.setattr(Settler, "_settle_all", lambda *_: False)
        assert take(some, spooled, rules) == together
    assert take(some, spooled, rules, express=True) == together


ALIKE_RULES = """
[[rule]]
where = { level = "high" }
priority = "critical"
[[rule]]
where = { "deep.er" = "x" }
priority_from = "level"
[[rule]]
source = "/b"
priority = "important"
[[rule]]
type = "dropped"
drop = true
[[rule]]
type = "extended"
priority = "normal"
set = { unit = "s" }
"""

alike = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["/a", "/b"]),
        "type": st.sampled_from(["t", "dropped", "extended", events.DAMAGED_TYPE]),
        "priority": st.sampled_from(["normal", "critical", "urgent", None]),
        "time": st.sampled_from([TIMES[0], None]),
    }
)
some_data = st.sampled_from(
    [
        {"line": "x"}, {"level": "high"}, {"level": "low"}, {"level": 7}, {"deep": {"er": "x"}, "level": "normal"},
        {"deep": {"er": ["x"]}}, {"deep": "er"}, {"line": "y" * 70_000}, [1], None,
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(alike, st.lists(some_data, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_events_that_are_alike_come_the_same_either_way(
    common: dict[str, Any], data: list[Any], spooled: bool, same_data: bool
) -> None:
    """Those that the express way takes, and those that it leaves."""
    some = []
    for number, each in enumerate(data, 1):
        event = {
            **USUAL,
            **common,
            "id": str(number),
            "sequence": f"{number:020}",
            "data": data[0] if same_data else each,
        }
        given = {name: value for name, value in event.items() if value is not None}
        some.append(json.dumps(given, separators=(",", ":")).encode())
    assert take(some, spooled, ALIKE_RULES, express=True) == take(some, spooled, ALIKE_RULES)


def test_the_express_way_is_gone_and_found_again(logged: Logged) -> None:
    """Parcels behind one that has to go the long way are not tried, for a while."""
    counters = Counters()
    settler = Settler(
        classifier=Classifier((), events.Priority.ERROR),
        suppressor=None,
        unclassified=Unclassified(Clock()),
        counters=counters,
        last=10,
    )
    quick = Express(settler.classifier, settler, counters)
    line = json.dumps({**USUAL, "priority": "normal"}).encode()

    def taken(*some: bytes) -> bool:
        return quick.take(Parcel(Speaker(None), some, float(T0), 1), Batch())

    assert taken(line, line)
    assert not taken(line, line.replace(b"normal", b"critical"))
    assert [taken(line) for _ in range(PASSED_OVER + 1)] == [False] * PASSED_OVER + [True]
    assert (counters.received, settler.last) == (3, 13)
    settler.settle_alike = None  # type: ignore[assignment,method-assign]  # a mistake of ours
    assert not taken(line)
    assert (counters.received, settler.last) == (3, 13)


def test_usual_events_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that costs more is not gone without need."""
    monkeypatch.setattr(Intake, "_read_each", None)
    monkeypatch.setattr(Settler, "_settle_each", None)
    some = [json.dumps({**USUAL, "sequence": f"{n:020}", "priority": "normal"}).encode() for n in range(1, 4)]
    rows = take(some, False, RULES)[0]
    assert len(rows) == 6
    monkeypatch.setattr(intake, "MAX_SEQUENCE", 2)
    with pytest.raises(TypeError):
        take(some, True, RULES)


@pytest.mark.parametrize("place", ["stamp", "with_attributes"])
def test_a_mistake_of_ours_costs_one_event_its_priority(
    monkeypatch: pytest.MonkeyPatch, logged: Logged, place: str
) -> None:
    """The others have what they would have without it, their hints too."""
    real: Callable[..., Any] = getattr(settle, place)

    def fail(*arguments: Any) -> Any:
        draft = next(each for each in arguments if isinstance(each, Draft))
        if draft.event.id == "2":
            raise ZeroDivisionError
        return real(*arguments)

    monkeypatch.setattr(settle, place, fail)
    rules = '[[rule]]\nsource = "/a"\npriority = "critical"\nset = { unit = "s" }\n'
    some = [json.dumps({**USUAL, "id": str(n), "priority": "important"}).encode() for n in (1, 2, 3)]
    some = [line.replace(b'"time": "%b", ' % TIMES[0].encode(), b"") for line in some]
    rows = take(some, False, rules)[0][:3]
    assert len(logged.expect_failure(ZeroDivisionError)) == 2
    assert [(row[0], row[4], hint) for row, _, (hint, _), _ in rows] == [
        (11, "critical", "important"),
        (12, "error", None),
        (13, "critical", "important"),
    ]
    assert [dict(line).get("unit") for _, line, _, _ in rows] == ["s", None, "s"]


def test_lines_that_grow_too_long_are_shortened_among_others(hub: Hub) -> None:
    """Only those."""
    draft = Draft(events.decode(json.dumps(USUAL).encode()), "r", 1.0)
    draft.add_context("big", "x", json.dumps("x" * wire.MAX_HUB_LINE).encode())
    plain = Draft(events.decode(json.dumps(USUAL).encode()), "r", 1.0)
    batch = Batch()
    hub.pipeline._settler.settle([plain, draft, plain], None, 0.0, batch)
    found = [json.loads(entry.line)["data"] for entry in batch.entries]
    assert found == [{"line": "x"}, {"line": "x", "truncated": True}, {"line": "x"}]
