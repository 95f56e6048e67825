"""What keeps callers from seeing that a server is away, and servers from being drowned by callers."""

from mutants.mutant import Mutant

_TEST_CALLING = ("tests/clients/test_calling.py",)
_TEST_RETRIES = ("tests/clients/test_retries.py",)

CLIENTS = (
    Mutant(
        "client-suspects-last",
        "client: a suspect gets no attempt while another serves",
        "return min(order, key=lambda index: index in avoid)",
        _TEST_CALLING,
    ),
    Mutant(
        "client-suspect-back",
        "client: a suspect is given back only when it answers a probe",
        "if not serving:",
        _TEST_CALLING,
    ),
    Mutant(
        "client-silence",
        "client: silence makes a suspect",
        "if isinstance(error, ServerUnavailableError):",
        _TEST_CALLING,
    ),
    Mutant(
        "client-budget",
        "client: a full server is asked again within the budget only",
        "return True",
        (*_TEST_RETRIES, *_TEST_CALLING),
    ),
    Mutant(
        "client-forbidden",
        "client: a server that forbids it is not asked again",
        "error.retryable = True",
        ("tests/clients/test_client.py",),
    ),
    Mutant(
        "client-late-wish",
        "client: a server that wants to be asked after the deadline is not asked again",
        "if False:",
        _TEST_RETRIES,
    ),
    Mutant(
        "client-first-contact",
        "client: a wrong address shows within seconds",
        "if False:",
        _TEST_CALLING,
    ),
    Mutant(
        "client-one-version",
        "client: one version answers all parts of a request",
        "",
        _TEST_CALLING,
    ),
)
