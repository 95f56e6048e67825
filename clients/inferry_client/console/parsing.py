"""The parser of the command line: one line where arguments are wrong, and options and arguments in any order."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from inferry_client.console.output import say

_MISUSE = 2
_MANY = ("+", "*")
_HELP = {"-h", "--help"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line.

    Attributes:
        modes: words that, as the first argument, have a help of their own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modes: dict[str, argparse.ArgumentParser] = {}

    def add_mode(self, name: str, summary: str) -> argparse.ArgumentParser:
        """A parser that is printed as the help of a mode; what is accepted says this one."""
        prog = f"{self.prog} {name}"
        self.modes[name] = mode = Parser(prog=prog, description=f"{summary}.", allow_abbrev=False)
        return mode

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, which takes arguments of which there may be many only if they stand together."""
        if args is not None and any(action.nargs in _MANY for action in self._get_positional_actions()):
            options, words = self._apart(args)
            if words and words[0] in self.modes and _HELP.intersection(options):
                self.modes[words[0]].print_help()
                self.exit()
            args = [*options, "--", *words] if words else options
        return super().parse_known_args(args, namespace)

    def print_help(self, file: Any = None) -> None:
        """On stdout, or into a file."""
        say(self.format_help().rstrip()) if file is None else super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """End the process as for wrong arguments."""
        self.exit(_MISUSE, f"inferry: error: {message} (`{self.prog} --help` lists what is accepted)\n")

    def _apart(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """Options, each with its value, and the rest."""
        options: list[str] = []
        words: list[str] = []
        left = iter(args)
        for word in left:
            if word == "--":
                words += left
            elif word == "-" or not word.startswith("-"):
                words.append(word)
            else:
                options.append(word)
                action = self._option_string_actions.get(word)
                if action is not None and action.nargs is None:
                    options += [value for value in (next(left, None),) if value is not None]
        return options, words
