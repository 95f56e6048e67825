"""Cases of a target, one seed after another, and what came of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.target import Target

_MOST_FINDINGS = 5  # of a target; then it ends
_BETWEEN_LINES_S = 5.0


@dataclass
class Result:
    """What one target did.

    Attributes:
        cases: checked, of which some were accepted.
        findings: by seed, the reason.
    """

    target: str
    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.cases / self.seconds if self.seconds else 0.0
        counts = f"{self.cases:9} cases {self.accepted:9} accepted {len(self.findings):3} findings"
        return f"{self.target:11}{counts} {rate:8.0f} cases/s"


def run_target(
    target: Target,
    *,
    seed: int,
    cases: int,
    say: Callable[[str], None] = print,
    begin_case: Callable[[], object] = lambda: None,
) -> Result:
    """Check the cases of `cases` seeds from `seed` on; ends early after a few findings.

    Args:
        target: what is attacked.
        seed: of the first case.
        cases: how many.
        say: told of progress and findings.
        begin_case: called before each; limits its time.
    """
    result = Result(target.name)
    began = said = time.monotonic()
    with target.opened() as check:
        for number in range(seed, seed + cases):
            try:
                begin_case()
                result.accepted += check(target.mutate(number))
            except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
                result.findings[number] = f"{type(error).__name__}: {error}"[:2000]
                say(_told(target.name, number, result.findings[number]))
            result.cases += 1
            now = time.monotonic()
            result.seconds = now - began
            if now - said > _BETWEEN_LINES_S:
                said = now
                say(f"... {result}")
            if len(result.findings) >= _MOST_FINDINGS:
                break
    return result


def _told(target: str, seed: int, reason: str) -> str:
    again = f'make fuzz ARGS="--target {target} --seed {seed} --cases 1"'
    return f"FOUND: target {target}, seed {seed}: {reason}\n  repeat it with: {again}"
