"""The end of the demo: the account as a table, and whether it balances."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from notifyd.ctl.demo_account import COLUMNS, OWN, Account
from notifyd.ctl.screen import STYLES

Figures = Mapping[str, int]

WIDE = 100
"""Columns that the whole table takes."""

NOT_COUNTED = "·"
"""Stands where nobody counts: the agent's counters do not tell lanes apart."""


def table(account: Account, ports: Mapping[str, int], *, wide: bool = True) -> Table:
    """Gives the account as a table: a row for each place that an event passes.

    Args:
        account: what was counted.
        ports: the hub's port of each priority.
        wide: whether there are ``WIDE`` columns, so that it can say who counted.
    """
    grid = Table(box=box.ROUNDED, title="What became of every event", title_style="bold", header_style="bold")
    grid.add_column("", min_width=23)
    for column in COLUMNS:
        head = Text("daemons'\nown") if column == OWN else Text(f"{ports[column]}\n{column}", STYLES[column])
        grid.add_column(head, justify="right", vertical="middle")
    grid.add_column("total", justify="right", style="bold", vertical="middle")
    if wide:
        grid.add_column("counted from", style="dim", vertical="middle")

    agent, waiting = account.agent, dict(account.waiting)
    lost = account.lost_by()
    _row(grid, "printed by the panel", account.printed_by(cable=True), None, "the panel", own=False)
    _row(grid, "read by the agent", {}, agent.get("read"), "agent's counter")
    _row(grid, "stored by the agent", {}, agent.get("stored"), "agent's counter")
    _row(grid, "  waited for the hub", waiting, None, "agent's database", style="dim")
    _row(grid, "sent to the hub", {}, agent.get("sent"), "agent's counter")
    _row(grid, "  sent again", {}, account.sent_again, "agent's counter", style="dim")
    _row(grid, "acknowledged by the hub", {}, agent.get("acknowledged"), "agent's counter")
    _row(grid, "stored by the hub", account.stored_by(), None, "hub's database")
    _row(grid, "delivered to its client", account.delivered_by(), None, "clients' sockets")
    _row(grid, "  delivered again", account.repeated_by(), None, "clients' sockets", style="dim")
    _row(grid, "lost", lost, None, "", style="bold red" if any(lost.values()) else "bold green", end=True)
    out = account.printed_by(cable=False)
    _row(grid, "printed, cable out", out, None, "outside the promise", own=False, style="red")
    return grid


def verdict(account: Account, problems: list[str], seconds: float) -> list[Text]:
    """Says whether the account balances, and what does not."""
    if problems:
        lines = [Text("✘ The account does not balance:", "bold red")]
        return lines + [Text(f"  {problem}", "red") for problem in problems]
    delivered, out = sum(account.delivered_by().values()), sum(account.printed_by(cable=False).values())
    repeated = sum(account.repeated_by().values())
    text = f"✔ It balances: {delivered} events, each at its client, in order, none lost. It took {seconds:.0f} s."
    lines = [Text(text, "bold green")]
    if repeated:
        again = "1 event came twice" if repeated == 1 else f"{repeated} events came twice"
        lines.append(Text(f"  {again}: the hub's crash forgot the client's ACK. Same id.", "dim"))
    if out:
        printed = "1 line was printed" if out == 1 else f"{out} lines were printed"
        lines.append(Text(f"  {printed} with the cable out: nobody can promise those.", "dim"))
    return lines


def _row(
    grid: Table,
    what: str,
    figures: Figures,
    total: int | None,
    whence: str,
    *,
    own: bool = True,
    style: str = "",
    end: bool = False,
) -> None:
    cells = []
    for column in COLUMNS:
        is_counted = column in figures and (own or column != OWN)
        cells.append(str(figures[column]) if is_counted else NOT_COUNTED)
    whole = sum(figures.values()) if figures else total
    shown = "?" if whole is None else str(whole)
    label = Text(what, style or "bold")
    row: list[Text | str] = [label, *(Text(cell, style) for cell in cells), Text(shown, style or "bold"), whence]
    grid.add_row(*row[: len(grid.columns)], end_section=end)
