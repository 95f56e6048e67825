"""The guards of the HTTP port: connections, bodies, and who may ask what."""

from mutants.mutant import Mutant

_TEST_WITHOUT_EXTRA = ("tests/server/http/test_without_extra.py",)
_TEST_GUARD = ("tests/server/http/test_guard.py",)
_TEST_REST = ("tests/contract/test_rest.py",)
_TEST_JSON = ("tests/server/http/test_json_tensors.py",)
_TEST_BODIES = ("tests/server/http/test_bodies.py",)
_TEST_ACCEPTING = ("tests/server/http/test_accepting.py",)
_TEST_HEALTH = ("tests/server/http/test_health.py",)
_TEST_CROWD = ("tests/server/http/test_crowd.py",)
_TEST_CONNECTIONS = ("tests/server/http/test_connections.py",)
_TEST_DIRECT = ("tests/server/http/test_direct.py",)
_TEST_HEADS = ("tests/server/http/test_heads.py",)
_TEST_REPEATED = ("tests/server/http/test_repeated_heads.py",)
_TEST_PLANS = ("tests/server/http/test_plans.py",)

HTTP = (
    Mutant(
        "live-head",
        "HTTP: the head of an event stream ends",
        "if False:",
        ("tests/server/http/test_event_stream.py",),
    ),
    Mutant("metrics-page-few", "metrics page: the oldest connection makes room", "oldest = None", _TEST_WITHOUT_EXTRA),
    Mutant("metrics-page-alone", "metrics page: nothing else looks well", "if False:", _TEST_WITHOUT_EXTRA),
    Mutant("http-connections-bounded", "HTTP: connections are bounded", "if False:", _TEST_CROWD),
    Mutant("http-peers-bounded", "HTTP: connections of one peer are bounded", "if False:", _TEST_CROWD),
    Mutant(
        "http-crowd-fair",
        "HTTP: whoever has the most connections makes room",
        "return list(self._members.values())",
        _TEST_CROWD,
    ),
    Mutant(
        "http-slow-makes-room",
        "HTTP: connections in the middle of a body make room",
        "return (0, self.deadline) if self._is_between_requests() else None",
        _TEST_CROWD,
    ),
    Mutant("http-health-alone", "HTTP: above the limit, health alone is told", "if False:", _TEST_CROWD),
    Mutant("http-pipelined-bounded", "HTTP: requests in a pipeline are bounded", "if False:", _TEST_CROWD),
    Mutant("http-header-unended", "HTTP: no head goes on for ever", "if False:", _TEST_CONNECTIONS),
    Mutant(
        "http-trailer-unended",
        "HTTP: no trailer goes on for ever",
        "if self._in_head and not self._got_on:",
        _TEST_CONNECTIONS,
    ),
    Mutant("http-pipeline-first", "HTTP: a client is read as it is answered", "if True:", _TEST_CROWD),
    Mutant("http-owed-first", "HTTP: no error overtakes a reply", "if False:", _TEST_CROWD),
    Mutant("http-handshakes-bounded", "HTTP: handshakes are bounded", "if False:", _TEST_CROWD),
    Mutant("http-handshakes-late", "HTTP: handshakes have a time", "", _TEST_CROWD),
    Mutant("http-bodies-slowest", "HTTP: slow bodies give their room to others", "if True:", _TEST_BODIES),
    Mutant("http-headers-bounded", "HTTP: headers are bounded", "if False:", _TEST_CONNECTIONS),
    Mutant(
        "http-clients-late",
        "HTTP: slow clients are not waited for",
        "elif False:",
        (_TEST_CONNECTIONS[0] + "::test_a_body_that_comes_steadily_has_its_time",),
    ),
    Mutant("http-upgrade-body", "HTTP: no body behind Upgrade is lost", "if False:", _TEST_HEADS),
    Mutant("livez-reading", "HTTP: a server that reads no calls does not live", "if False:", _TEST_HEALTH),
    Mutant("http-body-stated", "HTTP: an announced body that is too large is not read", "if False:", _TEST_BODIES),
    Mutant("http-body-read", "HTTP: what is read of a body is bounded", "if False:", _TEST_BODIES),
    Mutant("http-body-decompressed", "HTTP: what a body decompresses to is bounded", "if False:", _TEST_BODIES),
    Mutant("http-origin", "HTTP: pages of other sites ask nothing", "if False:", _TEST_GUARD),
    Mutant("http-certificate", "HTTP: inference asks for the client's certificate", "if False:", _TEST_GUARD),
    Mutant("http-binary-left", "HTTP: bytes behind the JSON belong to inputs", "if False:", _TEST_REST),
    Mutant("json-bounded", "JSON: how much is read is bounded", "if False:", _TEST_JSON),
    Mutant("json-kinds", "JSON: elements are of the datatype's kind", "if False:", _TEST_JSON),
    Mutant("json-range", "JSON: numbers are within the datatype's range", "if False:", _TEST_JSON),
    Mutant("json-whole-beyond", "JSON: numbers of more than 64 bits are told", "if False:", _TEST_JSON),
    Mutant("json-not-finite", "JSON: what is not finite is written", "if False:", _TEST_JSON),
    Mutant("json-texts-nested", "JSON: a text is no list", "if len(data[0]) == 1:", _TEST_JSON),
    Mutant("json-output-bounded", "JSON: how much is written is bounded", "if False:", _TEST_JSON),
    Mutant(
        "gives-way",
        "metrics page, live page: other threads run in between",
        "pass",
        ("tests/server/test_giving_way.py",),
    ),
    Mutant(
        "gives-way-hurries",
        "metrics page, live page: pauses are long for a second only",
        "hurries = False",
        ("tests/server/test_giving_way.py",),
    ),
    Mutant(
        "live-access",
        "HTTP: the live page's data asks for the role read",
        "if False:",
        ("tests/contract/test_explain.py",),
    ),
    Mutant("http-host", "HTTP: pages of other names ask nothing", "if False:", _TEST_GUARD),
    Mutant("metrics-page-host", "metrics page: pages of other names see nothing", "if False:", _TEST_WITHOUT_EXTRA),
    Mutant("metrics-page-one-host", "metrics page: a request names one host", "if False:", _TEST_WITHOUT_EXTRA),
    Mutant("http-accepted-bounded", "HTTP: Accept-Encoding is bounded", "if False:", _TEST_ACCEPTING),
    Mutant("http-one-host", "HTTP: a request names one host", "if False:", _TEST_HEADS),
    Mutant("http-trailers", "HTTP: trailers are no headers", "if True:", _TEST_HEADS),
    Mutant("http-encoding-known", "HTTP: unknown compression is refused", "if False:", _TEST_BODIES),
    Mutant("http-accepted-encoding", "HTTP: replies are compressed as accepted", "return True", _TEST_ACCEPTING),
    Mutant("http-bodies-bounded", "HTTP: all bodies together are bounded", "if False:", _TEST_BODIES),
    Mutant("rest-plans-data", "REST: a plan holds for as much data", "if plan is not None:", _TEST_PLANS),
    Mutant("rest-plans-bytes", "REST: a plan holds for as many bytes", "if plan is not None:", _TEST_PLANS),
    Mutant("rest-plans-whole", "REST: an id in JSON that repeats is written", "if not has_data:", _TEST_PLANS),
    Mutant("rest-plans-form", "REST: what has another form has no plan", "if False:", _TEST_PLANS),
    Mutant("rest-replies-sizes", "REST: a plan holds for replies as large", "if plan is not None:", _TEST_PLANS),
    Mutant("rest-replies-regions", "REST: replies in shared memory have no plan", "if False:", _TEST_PLANS),
    Mutant("direct-refused", "REST, direct: what the guard refuses is refused", "if False:", _TEST_DIRECT),
    Mutant("direct-short", "REST, direct: long bodies go the long way", "if False:", _TEST_DIRECT),
    Mutant("direct-access", "REST, direct: callers without a role are refused", "if False:", _TEST_DIRECT),
    Mutant("direct-same-head", "REST, direct: another head is looked at", "if known is None:", _TEST_DIRECT),
    Mutant("direct-in-order", "REST, direct: replies come in order", "if False:", _TEST_DIRECT),
    Mutant("direct-cancelled", "REST, direct: who goes takes its request along", "", _TEST_DIRECT),
    Mutant("json-truths", "JSON: no truth is taken for a number", "if datatype.dtype.kind in _PACKED:", _TEST_PLANS),
    Mutant("repeated-head", "REST, direct: another head is parsed", "if False:", _TEST_REPEATED),
    Mutant(
        "repeated-behind",
        "REST, direct: headers behind the length are those of the head",
        "if end < 0 or not digits.isdigit():",
        _TEST_REPEATED,
    ),
    Mutant("repeated-length", "REST, direct: one request comes at a time", "return data[start:]", _TEST_REPEATED),
    Mutant(
        "repeated-alone",
        "REST, direct: nothing is kept of more than one request",
        "if len(stated) > _MOST_DIGITS:",
        _TEST_REPEATED,
    ),
    Mutant(
        "repeated-in-order",
        "REST, direct: who reads no replies is answered as ever",
        "if body is None or self._direct is None:",
        _TEST_DIRECT,
    ),
    Mutant("texts-behind", "REST: a text goes on behind its data", "if around is None:", _TEST_PLANS),
    Mutant("texts-numbers", "REST: truths come the long way", "if False:", _TEST_PLANS),
    Mutant("texts-id", "REST: an id within a text is the request's", "if request is None:", _TEST_PLANS),
    Mutant("texts-around", "REST: a text holds for its data alone", "if False:", _TEST_PLANS),
    Mutant("http-waited", "REST: reading a request counts as waiting", "pass", ("tests/server/http/test_calls.py",)),
    Mutant("direct-waited", "REST, direct: waiting for a round counts", "call.waited_s = 0.0", _TEST_DIRECT),
    Mutant("http-idle-closes", "HTTP: idle connections are closed, not cut off", "if False:", _TEST_DIRECT),
)
