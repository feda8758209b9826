"""Results as Markdown tables, of medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

ENOUGH_IDLE = 0.1
"""Of a process of the generator: with less it may be the bottleneck."""

Runs = dict[tuple[str, str, str], list[dict[str, Any]]]
"""The runs of each work, case and peer."""


def grouped(results: dict[str, Any]) -> Runs:
    """Gives the runs that did not fail."""
    runs: Runs = {}
    for run in results["runs"]:
        if "failed" not in run:
            runs.setdefault((run["work"], run["case"], run["peer"]), []).append(run)
    return runs


def median(runs: Runs, work: str, case: str, peer: str, key: str) -> float | None:
    """Gives the median of a figure; None where it was not measured."""
    values = [run[key] for run in runs.get((work, case, peer), []) if run.get(key) is not None]
    return statistics.median(values) if values else None


def cases(results: dict[str, Any], work: str) -> list[str]:
    """Gives the cases of a work, in the order in which they were run."""
    return list(dict.fromkeys(run["case"] for run in results["runs"] if run["work"] == work))


def rate(value: float | None) -> str:
    """Writes a rate with three figures: 8.52 M, 540,000, 3,900."""
    if value is None:
        return "-"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"


def number(digits: int, unit: str = "") -> Callable[[float | None], str]:
    """Gives what writes a figure with so many places."""
    return lambda value: "-" if value is None else f"{value:,.{digits}f}{unit}"


def percent(value: float | None) -> str:
    """Writes a share."""
    return "-" if value is None else f"{100 * value:.0f} %"


def brief(work: str, result: dict[str, Any]) -> str:
    """Gives the one line of a case that has just run."""
    shown: dict[str, Callable[[Any], str]] = {
        "deliveries_s": rate, "acked_s": rate, "p50_ms": number(2, " ms"), "p99_ms": number(2, " ms"),
        "exact": str, "idle_producer": percent, "idle_drain": percent, "server_cpu": percent,
    }  # fmt: skip
    if work in ("fanout", "latency", "ingest"):
        return ", ".join(f"{key} {write(result[key])}" for key, write in shown.items() if result.get(key) is not None)
    return ", ".join(f"{key} {_plain(value)}" for key, value in result.items())


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) + ")"
    return str(value)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = list(head)
    lines = [first, ["---"] + ["---:"] * (len(first) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


class Report:
    """Writes the tables of some results."""

    def __init__(self, results: dict[str, Any]) -> None:
        self._results, self._runs, self._peers = results, grouped(results), results["peers"]
        rounds = results["options"]["rounds"]
        self._of = f"median of {rounds} rounds" if rounds > 1 else "one round"

    def text(self) -> str:
        """Gives everything that was measured."""
        parts = [self._machine(), self._guarantees()]
        if cases(self._results, "fanout"):
            parts += self._fanout()
        if cases(self._results, "latency"):
            parts += self._latency()
        if cases(self._results, "ingest"):
            parts.append(self._ingest())
        if cases(self._results, "memory"):
            parts.append(self._memory())
        parts += [self._own(work) for work in ("stuck", "catchup", "agent", "growth", "files", "start")]
        parts.append(self._failures())
        return "\n".join(part for part in parts if part)

    def _machine(self) -> str:
        machine = self._results["machine"]
        return (
            f"{machine['cores']} cores ({machine['processor']}), Linux {machine['kernel']}, Python {machine['python']},"
            f" {machine['filesystem']}, one fdatasync {machine['fdatasync_ms']:.2f} ms, {machine['when']} UTC\n"
        )

    def _guarantees(self) -> str:
        rows = [(peer["title"], peer["version"], peer["guarantee"]) for peer in self._peers.values()]
        return (
            "\n".join(
                f"- {title} ({version}), when it acknowledges: {guarantee}." for title, version, guarantee in rows
            )
            + "\n"
        )

    def _of_peers(
        self, title: str, work: str, names: list[tuple[str, str]], key: str, write: Callable[[float | None], str]
    ) -> str:
        """Gives a table with a row for each peer and a column for each case."""
        rows = []
        for peer, about in self._peers.items():
            values = [median(self._runs, work, case, peer, key) for case, _ in names]
            if any(value is not None for value in values):
                rows.append([self._title(peer, about), *map(write, values)])
        return f"**{title}** ({self._of})\n\n" + _table(["", *(name for _, name in names)], rows) if rows else ""

    def _title(self, peer: str, about: dict[str, str]) -> str:
        return peer if "@" in peer else about["title"]

    def _ratios(self, what: str, work: str, names: list[tuple[str, str]], key: str) -> str:
        """Gives notifyd's figure divided by that of each other peer."""
        rows = []
        for peer, about in self._peers.items():
            pairs = [
                (median(self._runs, work, case, "notifyd", key), median(self._runs, work, case, peer, key))
                for case, _ in names
            ]
            if peer != "notifyd" and any(ours and theirs for ours, theirs in pairs):
                rows.append(
                    [self._title(peer, about), *(f"{a / b:.2f}" if a is not None and b else "-" for a, b in pairs)]
                )
        if not rows:
            return ""
        return f"**notifyd divided by each other: {what}**\n\n" + _table(["", *(name for _, name in names)], rows)

    def _fanout(self) -> list[str]:
        names = [(case, f"S = {case}") for case in cases(self._results, "fanout")]
        parts = [
            self._of_peers("Fan-out: deliveries a second", "fanout", names, "deliveries_s", rate),
            self._ratios("deliveries", "fanout", names, "deliveries_s"),
            self._of_peers(
                "Processor seconds of the server for a million deliveries", "fanout", names, "cpu_s_per_million",
                number(2),
            ),
            self._of_peers("Idle share of the producer's process", "fanout", names, "idle_producer", percent),
            self._of_peers("Idle share of the subscribers' process", "fanout", names, "idle_drain", percent),
        ]  # fmt: skip
        return [*parts, self._inexact(), self._busy()]

    def _busy(self) -> str:
        """Tells where the generator may have been what was measured."""
        busy = [
            f"- {run['peer']}, S = {run['case']}, round {run['round']}: the {what} was idle for {percent(run[key])}"
            for run in self._results["runs"]
            for key, what in (("idle_producer", "producer"), ("idle_drain", "subscribers' process"))
            if run["work"] == "fanout" and run.get(key) is not None and run[key] < ENOUGH_IDLE
        ]
        return (
            "Here the load generator was busy, and the system may be faster:\n\n" + "\n".join(busy) + "\n"
            if busy
            else ""
        )

    def _inexact(self) -> str:
        """Tells where subscribers did not get what was sent, once and all."""
        wrong = [
            f"- {run['peer']}, S = {run['case']}, round {run['round']}: sent {run['sent']:,}, the subscribers had"
            f" {run['fewest']:,} to {run['most']:,} when the time was over"
            for run in self._results["runs"]
            if run["work"] == "fanout" and run.get("exact") is False
        ]
        if not wrong:
            return "Every subscriber had every event, once.\n"
        return "Not every subscriber had every event, once:\n\n" + "\n".join(wrong) + "\n"

    def _latency(self) -> list[str]:
        names = [(case, f"S = {case}") for case in cases(self._results, "latency")]
        return [
            self._missing(),
            self._of_peers("Latency p50, ms", "latency", names, "p50_ms", number(2)),
            self._of_peers("Latency p99, ms", "latency", names, "p99_ms", number(2)),
            self._ratios("p50", "latency", names, "p50_ms"),
            self._ratios("p99", "latency", names, "p99_ms"),
            self._of_peers("Idle share of the subscribers' process", "latency", names, "idle_drain", percent),
        ]

    def _missing(self) -> str:
        wrong = [
            f"{run['peer']} with S = {run['case']} ({run['count']:,} of {run['expected']:,})"
            for run in self._results["runs"]
            if run["work"] == "latency" and run.get("exact") is False
        ]
        return "Latency: not every delivery came: " + ", ".join(wrong) + ".\n" if wrong else ""

    def _ingest(self) -> str:
        names = [(case, f"{case} producer{'s' * (case != '1')}") for case in cases(self._results, "ingest")]
        table = self._of_peers("Ingest: events acknowledged a second", "ingest", names, "acked_s", rate)
        one = [("1", "1 producer")]
        return (
            table
            + "\n" + self._of_peers("Acknowledgement p99, ms", "ingest", one, "p99_ms", number(2))
            + "\n" + self._ratios("ingest", "ingest", names, "acked_s")
            + "\n" + self._of_peers("Idle share of the busiest producer", "ingest", names, "idle_producer", percent)
        )  # fmt: skip

    def _memory(self) -> str:
        one = [("", "MiB")]
        idle = self._of_peers("Memory, idle", "memory", one, "idle_mib", number(1))
        count = self._results["options"]["idle"]
        title = f"Memory for each of {count:,} idle subscribers"
        return idle + "\n" + self._of_peers(title, "memory", [("", "KiB")], "kib_per_subscriber", number(1))

    def _own(self, work: str) -> str:
        """Gives the figures of a work that only notifyd has, one a row."""
        parts = []
        for peer in self._peers:
            runs = self._runs.get((work, "", peer), [])
            if not runs:
                continue
            rows = [
                [key, _plain(_middle([run[key] for run in runs if key in run]))] for key in runs[0] if key not in _KEYS
            ]
            parts.append(f"**{peer}: {work}** ({self._of})\n\n" + _table(["", ""], rows))
        return "\n".join(parts)

    def _failures(self) -> str:
        failed = [run for run in self._results["runs"] if "failed" in run]
        lines = [f"- {run['work']} {run['case']} {run['peer']}: {run['failed']}" for run in failed]
        return "Failed:\n\n" + "\n".join(lines) + "\n" if lines else ""


_KEYS = ("round", "peer", "work", "case")


def _middle(values: list[Any]) -> Any:
    """Gives the median of figures, of each where they stand in a dict, and else what all of them are, or the worst."""
    if isinstance(values[0], dict):
        return {key: _middle([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], bool):
        return all(values)
    if isinstance(values[0], int | float):
        return statistics.median(values)
    return values[0]


def markdown(results: dict[str, Any]) -> str:
    """Gives all tables."""
    return Report(results).text()
