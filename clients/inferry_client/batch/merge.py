"""Shards of a job made one: each did every nth part in a folder of its own.

Parts are the same whoever makes them, so the merged folder has the bytes of a job that ran on one machine.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.places import is_same_place, open_place
from inferry_client.batch.plan import Plan, describe_difference, part_count
from inferry_client.batch.store import JobFolder

_SHARD = re.compile(r"shard-\d+-of-\d+")


def merge(out: Path | str, shards: Sequence[Path | str]) -> tuple[Plan, int, int]:
    """Make one job of its shards; may be interrupted and run again.

    Args:
        out: of the whole job: a folder or an address.
        shards: their folders or addresses; none: `shard-*` in `out`.

    Returns:
        The plan, the pictures that are answered, and those that are not.

    Raises:
        JobError: they are not of one job, one is damaged, in use, or parts are missing.
    """
    for shard in shards:
        if is_same_place(str(shard), str(out)):
            raise JobError(f"--out {out} is one of the shards too; expected a folder for all of them")
    place = open_place(out)
    places = [open_place(shard) for shard in shards] or [
        place.inner(name) for name in place.folders() if _SHARD.fullmatch(name)
    ]
    folders = [JobFolder(shard) for shard in places]
    whole = JobFolder(place)
    plan = _common_plan(whole, folders)
    with whole.locked():
        whole.begin(plan, extends=False)
        for folder in folders:
            with folder.locked():
                folder.check(plan, extends=False)
                _copy_parts(folder, whole, plan)
        missing = set(range(plan.first_part, plan.first_part + part_count(plan))) - whole.done_parts()
        if missing:  # guard: batch-merge-complete
            raise JobError(
                f"{len(missing)} of {part_count(plan)} parts are in none of the {len(folders)} shards, the first is "
                f"part {min(missing)}; run the shards that are not complete again, then merge again"
            )
        kinds = whole.write_errors()
        pictures = sum(len(receipt.entries) for _, receipt in whole.receipts())
        whole.write_success(pictures=pictures, answered=pictures - kinds.total())
    return plan, pictures - kinds.total(), kinds.total()


def _common_plan(out: JobFolder, folders: Sequence[JobFolder]) -> Plan:
    if not folders:
        raise JobError(f"{out} has no folders of shards; run the job with --shard INDEX/COUNT first")
    plans = []
    for folder in folders:
        plan = folder.read_plan()
        if plan is None:
            raise JobError(f"{folder} holds no job; expected the folder of a shard")
        plans.append(plan)
    for folder, plan in zip(folders, plans, strict=True):
        if plan != plans[0]:
            difference = describe_difference(plans[0], plan)
            raise JobError(f"{folder} and {folders[0]} hold different jobs: {difference}; merge shards of one")
    return plans[0]


def _copy_parts(shard: JobFolder, whole: JobFolder, plan: Plan) -> None:
    done = whole.done_parts()
    for part in sorted(shard.done_parts()):
        if part not in done:
            whole.copy_part(part, shard, plan=plan)
        elif whole.read_receipt(part).sha256 != shard.read_receipt(part).sha256:
            raise JobError(f"part {part} of {shard} differs from that of {whole}; delete the wrong one")
