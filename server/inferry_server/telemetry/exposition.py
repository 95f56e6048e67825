"""The metrics page as text: what `prometheus_client` writes, family by family, and cheaply where a collector can.

Its writers spell each label of each sample anew, 5 to 15 µs a sample, while whoever reads requests waits for the
interpreter. Collectors that have `texts` keep the labels of their series spelled, and write their own families.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from inferry_server.telemetry.series import Exemplar

Labels = tuple[str, ...]
"""The values of a series' labels, in the order of their names."""

T = TypeVar("T")

_OPEN_METRICS, _END = "application/openmetrics-text", b"# EOF\n"
_KEEPS_NAMES = ("", "underscores", "allow-utf-8")  # escaping that leaves names as ours are
_SOME = 24  # lines, about as many as a histogram's series has
_FEW = 1_000_000  # from here on Go writes whole numbers with an exponent


@runtime_checkable
class Writing(Protocol):
    """A collector that writes its own families."""

    def texts(self, *, open_metrics: bool) -> Iterator[str]:
        """Each family with its heading, in OpenMetrics' format or in Prometheus', in pieces that take short to make."""
        ...


class KeptSpellings:
    """Writes gauges and counters of the library's collectors, and keeps what comes before their values."""

    def __init__(self) -> None:
        self._heads: dict[str, dict[tuple[object, ...], str]] = {}

    def __len__(self) -> int:
        """How many series it knows."""
        return sum(map(len, self._heads.values()))

    def text(self, family: Metric, *, open_metrics: bool) -> str | None:
        """A family; None where it has more than names, labels and values."""
        if family.type not in ("gauge", "counter") or family.unit:
            return None
        known, found = self._heads.get(family.name, {}), dict[tuple[object, ...], str]()
        pieces = [heading(family.name, family.documentation, family.type, open_metrics=open_metrics)]
        for sample in family.samples:
            if sample.timestamp is not None or sample.exemplar or sample.name.endswith("_created"):
                return None
            key = (sample.name, *sample.labels.items())
            head = known.get(key) or f"{sample.name}{labelled(tuple(sample.labels), tuple(sample.labels.values()))} "
            found[key] = head
            pieces.append(f"{head}{written(sample.value)}\n")
        self._heads[family.name] = found  # what is gone is forgotten
        return "".join(pieces)


class PageRegistry(CollectorRegistry):
    """A registry that knows its collectors in their order. They are registered before any page is asked for.

    Attributes:
        collectors: with whether each of them writes its own families.
        kept: the spellings of the others' samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[tuple[Any, bool]] = []
        self.kept = KeptSpellings()

    def register(self, collector: Any) -> None:
        """As the registry's own."""
        super().register(collector)
        self.collectors.append((collector, isinstance(collector, Writing)))


def write_page(registry: PageRegistry, accept: str, names: Sequence[str] = ()) -> tuple[Iterator[bytes], str]:
    """The page in pieces, of a family or some of its lines each, and its content type.

    Args:
        registry: whose metrics are shown.
        accept: the formats that the client accepts, as its header says.
        names: of the metrics that it asks for; empty for all.
    """
    encode, content_type = choose_encoder(accept)
    if names or content_type.partition("escaping=")[2] not in _KEEPS_NAMES:
        return iter((encode(registry.restricted_registry(names) if names else registry),)), content_type
    return _families(registry, encode, open_metrics=content_type.startswith(_OPEN_METRICS)), content_type


def _families(registry: PageRegistry, encode: Callable[[Any], bytes], *, open_metrics: bool) -> Iterator[bytes]:
    for collector, writes in registry.collectors:
        if writes:
            for text in collector.texts(open_metrics=open_metrics):
                yield text.encode()
            continue
        for family in collector.collect():
            text = registry.kept.text(family, open_metrics=open_metrics)
            yield encode(_Alone(family)).removesuffix(_END) if text is None else text.encode()
    if open_metrics:
        yield _END


class _Alone:
    """What the library takes for a registry, with one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def heading(name: str, documentation: str, kind: str, *, open_metrics: bool) -> str:
    """The lines before a family's samples."""
    shown = documentation.replace("\\", r"\\").replace("\n", r"\n")
    if open_metrics:
        shown = shown.replace('"', r"\"")
    elif kind == "counter":
        name += "_total"
    return f"# HELP {name} {shown}\n# TYPE {name} {kind}\n"


class Spellings(Generic[T]):
    """What comes before the values of each series, spelled once; what a page does not ask for is forgotten.

    Args:
        spell: makes it from the values of the labels.
    """

    def __init__(self, spell: Callable[[Labels], T]) -> None:
        self._spell = spell
        self._known: dict[Labels, T] = {}

    def __len__(self) -> int:
        """How many series it knows."""
        return len(self._known)

    def of(self, series: Iterable[Labels]) -> dict[Labels, T]:
        """Of all series there are, in their order."""
        known, spell = self._known, self._spell
        self._known = found = {values: known.get(values) or spell(values) for values in series}
        return found


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """Labels in braces, by name; nothing where there are none."""
    spelled = [f'{name}="{_escaped(value)}"' for name, value in sorted(zip(names, values, strict=True))]
    return f"{{{','.join(spelled)}}}" if spelled else ""


def lines(heads: Iterable[str], values: Iterable[float]) -> str:
    """A line for each sample."""
    return "".join([f"{head}{written(value)}\n" for head, value in zip(heads, values, strict=True)])


def some_lines(heading: str, heads: Iterable[str], values: Collection[float]) -> Iterator[str]:
    """A family's heading and the lines of all samples, in pieces of some."""
    samples = zip(heads, values, strict=True)
    for _ in range(0, len(values) or 1, _SOME):
        yield heading + "".join([f"{head}{written(value)}\n" for head, value in islice(samples, _SOME)])
        heading = ""


def histogram_heads(name: str, labels: Sequence[str], values: Labels, buckets: Sequence[str]) -> list[str]:
    """What comes before the values of a histogram's series: its buckets, their count, their sum."""
    shown = labelled(labels, values)
    bounded = [f"{name}_bucket{labelled((*labels, 'le'), (*values, bucket))} " for bucket in buckets]
    return [*bounded, f"{name}_count{shown} ", f"{name}_sum{shown} "]


def histogram_lines(
    heads: Sequence[str], counts: Sequence[int], total: float, marks: Mapping[int, Exemplar] | None = None
) -> str:
    """The lines of a histogram's series; `counts` of each bucket and below, exemplars by bucket."""
    if not marks:
        return lines(heads, (*counts, counts[-1], total))
    shown = [
        f"{head}{written(count)}{_exemplar(marks.get(i))}\n"
        for i, (head, count) in enumerate(zip(heads, counts, strict=False))
    ]
    return "".join(shown) + lines(heads[len(counts) :], (counts[-1], total))


def written(value: float) -> str:
    """A value as Go spells it, which Prometheus is written in."""
    if type(value) is int and 0 <= value < _FEW:
        return f"{value}.0"
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _exemplar(mark: Exemplar | None) -> str:
    return "" if mark is None else f' # {{trace_id="{_escaped(mark.trace_id)}"}} {written(mark.value)} {mark.at}'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
