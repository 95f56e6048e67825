"""Results as a table for people, on the screen and in docs/chaos.md."""

from collections.abc import Sequence
from pathlib import Path

from chaos.account import Account
from chaos.playing import Result

_BEGIN, _END = "<!-- chaos: begin -->\n", "<!-- chaos: end -->\n"
_HEAD = (
    "| disturbance | what was done | sent | answered | refused | failed | wrong | recovered in | memory, MiB | "
    "descriptors |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def line_of(result: Result) -> str:
    """One line on the screen."""
    if result.skipped:
        return f"{result.name:24} not played: {result.skipped}"
    traffic = result.traffic
    ended = "FAILED" if result.faults else "ok"
    return (
        f"{result.name:24} {ended:6} {traffic.sent:6} sent = {traffic.answered} answered + "
        f"{traffic.refused.total()} refused + {traffic.failed.total()} failed; {traffic.wrong} wrong; "
        f"recovered in {result.recovered_s:.1f} s (at most {result.within_s:g}); "
        f"{result.memory[0]:.0f} -> {result.memory[1]:.0f} MiB, {result.files[0]} -> {result.files[1]} descriptors"
    )


def table_of(results: Sequence[Result]) -> str:
    """All of them, in Markdown."""
    return _HEAD + "".join(map(_row, results))


def write_table(page: Path, results: Sequence[Result]) -> None:
    """Put the table into its place in a page."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}{table_of(results)}{_END}{after}")


def _row(result: Result) -> str:
    if result.skipped:
        return f"| {result.name} | not played: {result.skipped} | | | | | | | | |\n"
    cells = (
        result.name, result.done, f"{result.traffic.sent:,}", f"{result.traffic.answered:,}",
        _by_reason(result.traffic, refused=True), _by_reason(result.traffic, refused=False), result.traffic.wrong,
        f"{result.recovered_s:.1f} s of {result.within_s:g}", f"{result.memory[0]:.0f}, {result.memory[1]:.0f}",
        f"{result.files[0]}, {result.files[1]}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |\n"


def _by_reason(account: Account, *, refused: bool) -> str:
    counts = account.refused if refused else account.failed
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) or "0"
