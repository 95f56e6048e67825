"""The command line takes options and arguments in any order, and modes have a help of their own."""

from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.cli import build_parser, main
from inferry_client.console.parsing import Parser


def parsed(words: str) -> Namespace:
    args = build_parser().parse_args(words.split())
    args.parser = None
    return args


@pytest.mark.parametrize(
    ("usual", "others"),
    [
        (
            "batch a b --out o --dry-run",
            ("a --out o b --dry-run", "--out=o a --dry-run b", "--dry-run --out o a b", "--dry-run --out o -- a b"),
        ),
        ("batch merge a b --out o", ("merge --out o a b", "--out o merge a b", "merge a --out=o b")),
        ("classify a b --top-k 3 --json", ("a --top-k 3 b --json", "--json a --top-k=3 b", "--json --top-k=3 -- a b")),
        ("load compare a b --verbose", ("compare --verbose a b", "--verbose compare a b")),
    ],
)
def test_options_may_stand_between_arguments(usual: str, others: tuple[str, ...]) -> None:
    command = usual.partition(" ")[0]
    for other in others:
        assert parsed(f"{command} {other}") == parsed(usual)


@given(
    st.lists(st.sampled_from(["a", "-", "--flag", "--value=x", "--value x"])),
    st.lists(st.sampled_from(["b", "--flag", "-x", "--"])),
)
def test_every_argument_is_read_once_and_in_order(before: list[str], behind: list[str]) -> None:
    parser = Parser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--value")
    arguments = [part for word in before for part in word.split()]
    args = parser.parse_args([*arguments, "--", *behind])
    assert args.words == [word for word in before if not word.startswith("--")] + behind
    assert args.flag == ("--flag" in before)
    assert (args.value == "x") == any(word.startswith("--value") for word in before)


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        (["batch", "merge", "--help"], "usage: inferry batch merge [-h] --out DIR [--verbose] [SHARD ...]", "--onnx"),
        (["batch", "--help", "merge", "a"], "usage: inferry batch merge", "--onnx"),
        (["batch", "--help"], "usage: inferry batch [-h]", "[SHARD"),
        (["batch", "--help", "images"], "`inferry batch merge` makes one", "[SHARD"),
        (["load", "compare", "-h"], "usage: inferry load compare [-h] [--verbose] FILE FILE", "--users"),
    ],
)
def test_help_is_of_the_mode_that_is_named(
    arguments: list[str], shown: str, hidden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert shown in out
    assert hidden not in out
