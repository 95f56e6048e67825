"""What a missing part is said to need works: the extras are those of pyproject.toml, and no index is named."""

import re
import tomllib
from pathlib import Path

from inferry_client.cli import _EXTRA_OF
from inferry_proto.extras import how_to_install

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("proto", "server", "trainer", "clients") for path in (ROOT / name).rglob("*.py")]
PAGES = [
    *ROOT.glob("*.md"),
    *(
        path
        for name in ("docs", "server", "trainer", "clients", "deploy", "bench")
        for path in (ROOT / name).rglob("*.md")
    ),
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_advice_is_a_command_in_a_checkout() -> None:
    assert how_to_install("server", "http") == "pip install '.[server,http]' in a checkout of Inferry"


def test_every_program_and_page_names_extras_that_exist() -> None:
    called = [text for path in SOURCES for text in re.findall(r"how_to_install\(([^)]*)\)", path.read_text())]
    extras = [*_EXTRA_OF.values(), *(extra for text in called for extra in re.findall(r"['\"]([\w-]+)['\"]", text))]
    written = [text for path in PAGES for text in re.findall(r"pip install '?\.\[([\w,-]+)\]", path.read_text())]
    assert len(extras) >= 8
    assert len(written) >= 8
    assert {*extras, *(extra for text in written for extra in text.split(","))} <= set(EXTRAS)


def test_nobody_is_sent_to_a_package_index() -> None:
    assert [path for path in (*SOURCES, *PAGES) if "inferry[" in path.read_text()] == []
