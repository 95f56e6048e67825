"""The import contracts can fail: an import that they forbid, planted among those there are, breaks one of them."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter import api
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract

ROOT = Path(__file__).parents[2]
LINTER = api.read_configuration(str(ROOT / "pyproject.toml"))
CONTRACTS, SESSION = LINTER["contracts_options"], LINTER["session_options"]
KINDS: dict[str, type[LayersContract | ForbiddenContract | IndependenceContract]] = {
    "layers": LayersContract,
    "forbidden": ForbiddenContract,
    "independence": IndependenceContract,
}
ORDERS = [contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"]

# What ARCHITECTURE.md and the folders' docstrings promise, whatever the contracts say.
PROMISED = [
    *(("inferry_server.batching", module) for module in ("grpc", "asyncio", "threading", "time", "concurrent")),
    *(("inferry_server.batching", module) for module in ("datetime", "queue", "random", "multiprocessing", "os")),
    ("inferry_server.transport", "inferry_server.batching"),
    ("inferry_server.services", "inferry_server.transport"),
    ("inferry_server.wire", "inferry_server.services"),
    ("inferry_server.models", "inferry_server.wire"),
    ("inferry_server.executing", "inferry_server.models"),
    ("inferry_server.batching", "inferry_server.executing"),
    ("inferry_server.runtime", "inferry_server.batching"),
    ("inferry_server.wire", "grpc"),
    ("inferry_server.models", "grpc"),
    ("inferry_server.services", "onnxruntime"),
    ("inferry_trainer.gates", "inferry_trainer.publishing"),
    ("inferry_trainer.blocks", "keras"),
    ("inferry_client.calling", "inferry_client.batch"),
    ("inferry_client.client", "inferry_client.cli"),
    ("inferry_client.commands", "inferry_client.cli"),
    ("inferry_client.batch", "inferry_client.load"),
    ("inferry_server", "inferry_trainer"),
    ("inferry_client", "inferry_server"),
    ("inferry_proto", "inferry_server"),
    ("inferry_proto", "grpc"),
]


def neighbours(layers: list[str]) -> Iterator[tuple[str, str]]:
    """Importers and what they may not import: each layer and the one above it, and the members of a layer."""
    for above, below in pairwise(layers):
        yield from product(below.split(" | "), above.split(" | "))
    for layer in layers:
        yield from permutations(layer.split(" | "), 2)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*SESSION["root_packages"], include_external_packages=True, cache_dir=None)


def broken(imports: grimp.ImportGraph) -> list[str]:
    return [options["name"] for options in CONTRACTS if not is_kept(options, imports)]


def is_kept(options: dict[str, Any], imports: grimp.ImportGraph) -> bool:
    rest = {name: value for name, value in options.items() if name not in ("name", "type")}
    contract = KINDS[options["type"]](options["name"], SESSION, rest)
    return contract.check(deepcopy(imports), verbose=False).kept


def planted(imports: grimp.ImportGraph, importer: str, imported: str) -> grimp.ImportGraph:
    """The imports with one more: of a module inside the one folder, by a module inside the other."""
    graph = deepcopy(imports)
    if imported not in graph.modules:
        graph.add_module(imported, is_squashed=True)
    names = [folder if graph.is_module_squashed(folder) else _inside(graph, folder) for folder in (importer, imported)]
    graph.add_import(importer=names[0], imported=names[1], line_number=1, line_contents="planted")
    return graph


def _inside(graph: grimp.ImportGraph, folder: str) -> str:
    return min(graph.find_descendants(folder), default=folder)


def test_the_imports_keep_every_contract(imports: grimp.ImportGraph) -> None:
    assert broken(imports) == []


@pytest.mark.parametrize(("importer", "imported"), PROMISED)
def test_an_import_that_is_promised_not_to_be_breaks_a_contract(
    imports: grimp.ImportGraph, importer: str, imported: str
) -> None:
    assert broken(planted(imports, importer, imported)) != []


@pytest.mark.parametrize(("importer", "imported"), [pair for layers in ORDERS for pair in neighbours(layers)])
def test_an_import_against_the_direction_breaks_the_order_of_the_folders(
    imports: grimp.ImportGraph, importer: str, imported: str
) -> None:
    orders = [options for options in CONTRACTS if options["type"] == "layers"]
    graph = planted(imports, importer, imported)
    assert not all(is_kept(options, graph) for options in orders)


@pytest.mark.parametrize("layers", ORDERS, ids=lambda layers: layers[0].partition(".")[0])
def test_every_module_has_its_place_in_the_order(imports: grimp.ImportGraph, layers: list[str]) -> None:
    places = {place for layer in layers for place in layer.split(" | ")}
    root = layers[0].partition(".")[0]
    lost = {
        module
        for module in imports.find_descendants(root)
        if not any(f"{module}.".startswith(f"{place}.") for place in places)
        and not any(f"{place}.".startswith(f"{module}.") for place in places)
    }
    assert lost == set()
