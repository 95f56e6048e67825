"""The commands of `inferry-train`, a file each.

`add` puts a command's flags into the parser; `_run` and the like do what it asks. TensorFlow is imported
only there, so that `--help` is quick.
"""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def say(line: str) -> None:
    """Print a line of what happens, at once."""
    print(line, flush=True)
