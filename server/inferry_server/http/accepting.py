"""What compression a client takes: `Accept-Encoding`, as RFC 9110 has it (12.4.2 and 12.5.3)."""

import re
from collections.abc import Mapping, Sequence

_MEMBER = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*")
_ALIASES = {"x-gzip": "gzip"}
_MOST = 2048  # characters, looked at on the thread that reads requests


def accepts(coding: str, lines: Sequence[str]) -> bool:
    """Whether a reply shall be sent in a coding.

    Args:
        coding: `gzip` or `deflate`.
        lines: the values of all `Accept-Encoding` headers of the request; without one, nothing is compressed.

    Returns:
        True where the client takes the coding, and does not say that it prefers `identity`. A member that is not
        written as the RFC has it counts for nothing; nor do headers of more than 2 KiB, which no client writes.
    """
    text = ",".join(lines)
    if len(text) > _MOST:  # guard: http-accepted-bounded
        return False
    weights = _weights(text)
    weight = weights.get(coding, weights.get("*", 0.0))
    return weight > 0 and weight >= weights.get("identity", 0.0)  # guard: http-accepted-encoding


def _weights(text: str) -> Mapping[str, float]:
    """By coding, in lower case; of one that stands there twice, the lower."""
    weights: dict[str, float] = {}
    for member in text.lower().split(","):
        read = _MEMBER.fullmatch(member)
        if read is not None:
            coding = _ALIASES.get(read[1], read[1])
            weights[coding] = min(weights.get(coding, 1.0), float(read[2] or 1))
    return weights
