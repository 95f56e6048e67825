"""What a class says to the compiler of the hot path. Interpreted, it says nothing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:  # the compiler alone needs the package, and leaves the decorator out

    def mypyc_attr(**_):  # noqa: D103 - as the package's
        return lambda decorated: decorated


__all__ = ["mypyc_attr"]
