"""`inferry completion`: a script that lets a shell complete commands, options and files."""

import argparse
from argparse import Namespace

from inferry_client.console.output import say


def run(args: Namespace) -> int:
    """Print the script; `eval "$(inferry completion bash)"` uses it."""
    script = completion_script(args.parser)
    say(script if args.shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}")
    return 0


def completion_script(parser: argparse.ArgumentParser) -> str:
    """The script for bash: it knows the commands and options of the parser."""
    commands = _commands(parser)
    cases = "\n".join(
        f'    {name}) words="{" ".join(_options(command))}" ;;' for name, command in sorted(commands.items())
    )
    return f"""_inferry() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words="{" ".join(sorted(commands))} {" ".join(_options(parser))}" each
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do case "$each" in
{cases}
  esac; done
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ "$word" != -* && $COMP_CWORD -gt 1 ]] && COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _inferry inferry"""


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return sorted(text for action in parser._actions for text in action.option_strings if text.startswith("--"))
