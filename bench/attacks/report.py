"""Outcomes of attacks as a table for people, on the screen and in SECURITY.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.attacks.measure import Outcome

BEGIN, END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->\n"
_HEAD = (
    "| attack | cases | server | memory above before: peak, afterwards | the other's slowest answer, its losses | "
    "what became of the attack |\n| --- | --- | --- | --- | --- | --- |\n"
)
_NAMES = {"inferry": "Inferry", "triton": "Triton"}


def line_of(attack: str, server: str, outcome: Outcome) -> str:
    """One line on the screen."""
    return f"{attack:26} {server:8} {_memory(outcome):26} {_waits(outcome):40} {_fate(outcome)}"


def table_of(rows: Sequence[tuple[str, str, Mapping[str, Outcome]]]) -> str:
    """All of them, in Markdown: a row for each server."""
    return _HEAD + "".join(_rows(*row) for row in rows)


def _rows(attack: str, cases: str, outcomes: Mapping[str, Outcome]) -> str:
    lines = []
    for number, (server, outcome) in enumerate(sorted(outcomes.items())):
        first = (attack, cases) if number == 0 else ("", "")
        cells = (*first, _NAMES[server], _memory(outcome), _waits(outcome), _fate(outcome))
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def write_table(page: Path, rows: Sequence[tuple[str, str, Mapping[str, Outcome]]]) -> None:
    """Put rows into their places in a page's table; where there is no outcome, what stands there stays.

    Args:
        page: with the table.
        rows: of all attacks in their order.
    """
    before, _, rest = page.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    kept = _by_attack(old)
    table = "".join(_rows(*row) if row[2] else kept.get(row[0], "") for row in rows)
    page.write_text(f"{before}{BEGIN}{_HEAD}{table}{END}{after}")


def _by_attack(table: str) -> dict[str, str]:
    """The lines of each attack in a table that was written."""
    found: dict[str, str] = {}
    name = ""
    for line in table.splitlines(keepends=True)[2:]:
        name = line.split("|")[1].strip() or name
        found[name] = found.get(name, "") + line
    return found


def _memory(outcome: Outcome) -> str:
    if outcome.ended:
        return f"{outcome.peak_mb:,.0f} MB, {outcome.ended}"
    return f"{outcome.peak_mb:,.0f}, {max(0.0, outcome.left_mb):,.0f} MB"


def _waits(outcome: Outcome) -> str:
    lost = ", ".join(f"{count:,} {what}" for what, count in outcome.lost.most_common())
    total = outcome.answered + outcome.lost.total()
    return f"{outcome.slowest_ms:,.0f} ms, " + (f"{lost} of {total:,}" if lost else "0")


def _fate(outcome: Outcome) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in outcome.seen.most_common()) or "nothing"
