"""The guards of the HTTP port: connections, bodies, and who may ask what."""

from mutants.mutant import Mutant

_TEST_BODIES = ("tests/server/http/test_bodies.py",)
_TEST_CONNECTIONS = ("tests/server/http/test_connections.py",)

HTTP = (
    Mutant("http-connections-bounded", "HTTP: connections are bounded", "if False:", _TEST_CONNECTIONS),
    Mutant("http-headers-bounded", "HTTP: headers are bounded", "if False:", _TEST_CONNECTIONS),
    Mutant(
        "http-clients-late",
        "HTTP: slow clients are not waited for",
        "elif False:",
        (_TEST_CONNECTIONS[0] + "::test_a_body_that_comes_steadily_has_its_time",),
    ),
    Mutant("http-body-stated", "HTTP: an announced body that is too large is not read", "if False:", _TEST_BODIES),
    Mutant("http-body-read", "HTTP: what is read of a body is bounded", "if False:", _TEST_BODIES),
    Mutant("http-body-decompressed", "HTTP: what a body decompresses to is bounded", "if False:", _TEST_BODIES),
)
