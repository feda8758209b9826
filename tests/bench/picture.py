"""Draws results: throughput over the number of subscribers, and latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.bench import report

COLOURS = {
    "limit": "#999999", "notifyd": "#d62728", "redis": "#1f77b4", "nats-sync": "#2ca02c", "nats-file": "#98df8a",
    "nats-core": "#17becf", "mosquitto": "#9467bd",
}  # fmt: skip


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what there are results for, and gives the pictures' files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if report.cases(results, "fanout"):
        drawn.append(_throughput(results, folder / "throughput.png"))
    if report.cases(results, "latency"):
        drawn.append(_latency(results, folder / "latency.png"))
    return drawn


def _style(peer: str) -> dict[str, Any]:
    ours = peer.startswith("notifyd")
    dashes = "--" if peer == "limit" or "@" in peer else "-"
    return {"color": COLOURS.get(peer, "#ff7f0e"), "linewidth": 3 if ours else 1.5, "linestyle": dashes, "marker": "o"}


def _title(results: dict[str, Any], peer: str) -> str:
    return peer if "@" in peer else str(results["peers"][peer]["title"])


def _machine(results: dict[str, Any]) -> str:
    machine, rounds = results["machine"], results["options"]["rounds"]
    of = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    return f"{of}, {machine['cores']} cores, fdatasync {machine['fdatasync_ms']:.1f} ms"


def _throughput(results: dict[str, Any], path: Path) -> Path:
    runs, cases = report.grouped(results), report.cases(results, "fanout")
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    for peer in results["peers"]:
        points = [(int(case), report.median(runs, "fanout", case, peer, "deliveries_s")) for case in cases]
        points = [point for point in points if point[1]]
        if points:
            axes.plot(*zip(*points, strict=True), label=_title(results, peer), **_style(peer))
    axes.set(xscale="log", yscale="log", xlabel="subscribers", ylabel="deliveries a second")
    axes.set_title(f"One producer at full speed, 256-byte events ({_machine(results)})", fontsize=9)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: report.rate(value)))
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _latency(results: dict[str, Any], path: Path) -> Path:
    runs, cases = report.grouped(results), report.cases(results, "latency")
    figure, all_axes = pyplot.subplots(1, len(cases), figsize=(9, 4), dpi=120, sharey=True, squeeze=False)
    peers = list(results["peers"])[::-1]
    for axes, case in zip(all_axes[0], cases, strict=True):
        for row, peer in enumerate(peers):
            middle = report.median(runs, "latency", case, peer, "p50_ms")
            high = report.median(runs, "latency", case, peer, "p99_ms")
            if middle and high:
                colour = COLOURS.get(peer, "#ff7f0e")
                axes.plot([middle, high], [row, row], color=colour, linewidth=4 if peer == "notifyd" else 2)
                axes.plot([middle], [row], "o", color=colour)
                axes.plot([high], [row], "|", color=colour, markersize=12)
        axes.set(xscale="log", xlabel="ms", title=f"S = {case}")
        axes.set_yticks(range(len(peers)), [_title(results, peer) for peer in peers], fontsize=8)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="x", which="major", alpha=0.3)
    figure.suptitle(f"Latency, p50 (dot) to p99 (bar) ({_machine(results)})", fontsize=9)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return path
