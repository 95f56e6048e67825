"""Which parts of a job are done on this machine, where several share it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from inferry_client.batch.errors import JobError

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Where Kubernetes tells the pods of an Indexed Job which one they are, from 0."""

_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """Which parts of a job are done here.

    Attributes:
        index: of this shard, from 0.
        count: of shards.
    """

    index: int = 0
    count: int = 1

    def has(self, number: int) -> bool:
        """Whether the nth part of the plan is among them."""
        return number % self.count == self.index

    @property
    def folder_name(self) -> str:
        """Of the folder in `out` where its results go; empty for a job of one shard: `out` itself."""
        return "" if self.count == 1 else f"shard-{self.index:05}-of-{self.count:05}"


def read_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that `2/8` names, or `8` with the index in the environment.

    Raises:
        JobError: neither, or an index that is not below the count.
    """
    match = re.fullmatch(r"(?:(\d{1,6})/)?(\d{1,6})", text, re.ASCII)
    index = match and (match[1] or environment.get(INDEX_VARIABLE, ""))
    if not match or not index or not re.fullmatch(r"\d{1,6}", index, re.ASCII):
        raise JobError(f"--shard is {text!r}; expected INDEX/COUNT like 0/8, or COUNT where ${INDEX_VARIABLE} is set")
    shard = Shard(int(index), int(match[2]))
    if not 0 <= shard.index < shard.count <= _MOST_SHARDS:
        raise JobError(f"--shard is {shard.index}/{shard.count}; expected an index from 0 to below the count")
    return shard
