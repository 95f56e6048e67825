"""The stories of the trainer, a file each, from beginning to end; the command line calls nothing else."""

from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Told what happens, a line at a time."""
