"""Every attack, by the bound it tries."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bench.attacks import by_grpc, by_http, by_outputs, by_pictures, by_silence
from bench.attacks.target import Target

SERVERS = ("inferry", "triton")
_ALONE = ("inferry",)  # Triton decodes no pictures


@dataclass(frozen=True)
class Attack:
    """Something that a client may do to a server.

    Attributes:
        act: does it, and says what became of its connections or calls; its docstring says what it does.
        flags: of Inferry, where its defaults are hours, or more connections than there is time to open.
        servers: those that have what is attacked.
    """

    name: str
    act: Callable[[Target], Counter[str]]
    flags: tuple[str, ...] = ()
    servers: tuple[str, ...] = SERVERS

    @property
    def cases(self) -> str:
        """What is done, how often."""
        return (self.act.__doc__ or "").strip().rstrip(".")


ATTACKS = (
    Attack("idle connections", by_grpc.idle_connections),
    Attack("vanishing connections", by_grpc.vanish),
    Attack("rapid reset", by_grpc.rapid_reset),
    Attack("endless headers", by_grpc.endless_headers),
    Attack("large metadata", by_grpc.large_metadata),
    Attack("random frames", by_grpc.random_frames),
    Attack("PING flood", by_grpc.pings),
    Attack("open streams", by_grpc.open_streams),
    Attack("half-sent messages", by_grpc.half_sent),
    Attack("slow messages", by_grpc.byte_by_byte),
    Attack("answers that are not read", by_grpc.answers_unread),
    Attack("gzip bombs", by_grpc.gzip_bombs),
    Attack("many fields", by_grpc.many_fields),
    Attack("many parameters", by_grpc.many_parameters),
    Attack("odd shapes", by_grpc.odd_shapes),
    Attack("spoiled requests", by_grpc.spoiled),
    Attack("long names", by_grpc.long_names),
    Attack("overload", by_grpc.overload),
    Attack(
        "overload: many models",
        by_grpc.many_models,
        ("--max-queue-size", "65536", "--max-queue-bytes", str(32 << 20), "--max-total-queue-bytes", str(64 << 20)),
    ),
    Attack("connections of one address", by_silence.one_address, ("--max-connections", "400")),
    Attack("idle time: connections", by_silence.connections, ("--max-connection-idle-s", "2")),
    Attack("idle time: streams", by_silence.streams, ("--stream-idle-timeout-s", "2")),
    Attack("idle time: more calls than may wait", by_silence.many_streams, ("--max-open-calls", "1000")),
    Attack("streams that are not read", by_silence.streams_unread, ("--reply-read-timeout-s", "2")),
    Attack("outputs that shapes tell", by_outputs.told),
    Attack("outputs that no shape tells", by_outputs.untold),
    Attack("pictures: pixels", by_pictures.pixels, servers=_ALONE),
    Attack("pictures: scans", by_pictures.scans, servers=_ALONE),
    Attack("pictures: chunks", by_pictures.chunks, servers=_ALONE),
    Attack("pictures: compressed chunks", by_pictures.compressed_chunks, servers=_ALONE),
    Attack("pictures: frames", by_pictures.frames, servers=_ALONE),
    Attack("HTTP: idle connections", by_http.idle),
    Attack("HTTP: slow bodies", by_http.slow_bodies),
    Attack("HTTP: slow large bodies", by_http.slow_large_bodies),
    Attack("HTTP: pipelined requests", by_http.pipelined),
    Attack("HTTP: slow headers", by_http.headers_byte_by_byte),
    Attack("HTTP: half bodies", by_http.half_bodies),
    Attack("HTTP: large bodies", by_http.large_bodies),
    Attack("HTTP: deep JSON", by_http.deep_json),
    Attack("HTTP: gzip bombs", by_http.gzip_bombs),
    Attack("HTTP: spoiled requests", by_http.spoiled),
)
