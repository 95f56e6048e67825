"""The guards of who may do what, and of what is read again."""

from mutants.mutant import Mutant

_ACCESS = ("tests/contract/test_access.py",)
_ROTATION = ("tests/contract/test_rotation.py",)
_POLICY = ("tests/server/security/test_policy.py",)
_SIGNED = ("tests/server/models/test_signed.py",)
_DECISION = ("tests/server/security/test_access.py",)
_NAMES = ("tests/server/security/test_certificate_names.py",)
_ZEROS = ("tests/server/security/test_certificate_zeros.py",)
_REVOKING = ("tests/server/transport/test_revoking.py",)
_CERTIFICATES = ("tests/server/transport/test_client_certificates.py",)
_HELD = ("tests/server/security/test_client_certificates.py",)
_GUARD = ("tests/server/http/test_guard.py",)
_ENDS = ("tests/server/http/test_certificate_ends.py",)

SECURITY = (
    Mutant(
        "certificate-with-chain",
        "mutual TLS: a certificate is refused with its chain",
        "found.certificates[pem] = known",
        _HELD,
    ),
    Mutant(
        "reload-tried-again",
        "files: what could not be used is tried again",
        "self._settled = self._failed = contents",
        ("tests/server/security/test_watching.py",),
    ),
    Mutant("signed-version", "signed: versions are verified", "pass", _SIGNED),
    Mutant("signed-model", "signed: a version is one of its model", "if False:", _SIGNED),
    Mutant("signed-quietly", "signed: nothing is printed", "kept.write_bytes(data)", _SIGNED),
    Mutant("signed-number", "signed: a version keeps its number", "if False:", _SIGNED),
    Mutant(
        "signed-labels", "signed: labels are verified", "with trusted_settings(folder.path, None) as settings:", _SIGNED
    ),
    Mutant("access-checked", "access: every call is decided", "pass", _ACCESS),
    Mutant("access-unread", "access: a refused call is not read", "if False:", _ACCESS),
    Mutant("metrics-access", "access: the metrics page too", "pass", _ACCESS),
    Mutant("token-expires", "access: tokens expire", "if True:", _DECISION),
    Mutant(
        "token-ascii",
        "access: a token that is not ASCII is nobody's",
        'digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()',
        _DECISION,
    ),
    Mutant("certificate-first-name", "access: of several common names the first counts", "pass", _NAMES),
    Mutant("certificate-ip", "access: addresses are compared in one spelling", "spelled = value", _NAMES),
    Mutant("policy-ip", "access: addresses in policies too", "return value", _NAMES),
    Mutant("calls-revoked", "access: streams of revoked callers end", "pass", _REVOKING),
    Mutant("unasked-revoked", "access: calls without a request end too", "for call in ():", _REVOKING),
    Mutant("unasked-revoked-aio", "access: over aio too", "if False:", _REVOKING),
    Mutant(
        "http-late-revoked", "access: a body that took long is nobody's", "pass", ("tests/contract/test_access.py",)
    ),
    Mutant(
        "direct-late-revoked",
        "access: nor an infer request whose body took long",
        "if False:",
        ("tests/contract/test_access.py",),
    ),
    Mutant("revoked-forgotten", "access: what a revoked stream waits for is forgotten", "pass", _REVOKING),
    Mutant("live-revoked", "access: the live page's stream ends too", "if False:", ("tests/server/http/test_live.py",)),
    Mutant(
        "client-certificate-ended",
        "TLS: a certificate that has ended is refused on open connections too",
        "if False:",
        _CERTIFICATES,
    ),
    Mutant(
        "client-authority-gone",
        "TLS: certificates of an authority that is gone are refused on open connections",
        "if False:",
        _CERTIFICATES,
    ),
    Mutant("client-authority-exchanged", "TLS: other authorities are taken up", "pass", _CERTIFICATES),
    Mutant(
        "authority-asks",
        "TLS: an OpenSSL that asks for no certificate is not relied on",
        "if False:",
        ("tests/server/security/test_client_authority.py",),
    ),
    Mutant(
        "authority-verifies",
        "TLS: an OpenSSL that verifies nothing is not relied on",
        "if False:",
        ("tests/server/security/test_client_authority.py",),
    ),
    Mutant("certificates-reviewed", "TLS: streams end with their certificates", "if False:", _CERTIFICATES),
    Mutant("connection-holds-until", "TLS: a certificate is read again", "return known is not None", _HELD),
    Mutant("connection-of-another", "TLS: a connection is known by its certificate's names", "if False:", _HELD),
    Mutant("certificate-zero", "access: over gRPC a name does not end at a zero", "if False:", _ACCESS),
    Mutant("http-certificate-zero", "access: over HTTP a name has no zero either", "if False:", _ZEROS),
    Mutant("certificate-ascii", "access: a name that is read in two ways is none", "if False:", _ACCESS),
    Mutant("certificate-unreadable", "access: who cannot be read is nobody", "return False", _ZEROS),
    Mutant("http-certificate-unreadable", "access: nor over HTTP", "except ZeroDivisionError:", _ACCESS),
    Mutant("certificates-bounded", "TLS: the table of certificates is bounded", "if False:", _HELD),
    Mutant("certificate-itself", "TLS: a certificate is not taken for another", "if certificate is None:", _HELD),
    Mutant("names-of-valid", "access: a certificate that holds no more has no roles", "if False:", _HELD),
    Mutant("connections-known-bounded", "TLS: the table of connections is bounded", "while False:", _HELD),
    Mutant("tls-connections-told", "TLS: connections are counted", "pass", _CERTIFICATES),
    Mutant("front-end-policy", "front ends: a policy that changes is obeyed", "pass", _ACCESS),
    Mutant(
        "metrics-page-certificate",
        "metrics page: nobody reads it beside mutual TLS",
        "if False:",
        ("tests/server/http/test_without_extra.py",),
    ),
    Mutant("metrics-certificate", "HTTP: the metrics ask for the client's certificate", "if False:", _GUARD),
    Mutant("http-authority-gone", "HTTP: a connection ends with its client's authority", "return True", _ENDS),
    Mutant("http-certificate-ended", "HTTP: a connection ends with its certificate", "if False:", _ENDS),
    Mutant(
        "http-ended-refused",
        "HTTP: a certificate that has ended is none",
        'return not state.get("has_certificate")',
        _ENDS,
    ),
    Mutant("http-reasons", "HTTP: health tells no names to whoever has no certificate", "return True", _GUARD),
    Mutant("http-handshakes-counted", "HTTP: handshakes that fail are counted", "pass", _GUARD),
    Mutant("http-refused-counted", "HTTP: what the guard refuses is counted", "pass", _GUARD),
    Mutant("one-token", "access: of two tokens none counts", "if False:", _DECISION),
    Mutant("certificate-roles", "access: certificates have roles", "if False:", _ACCESS),
    Mutant("http-certificate-reloaded", "reload: HTTP shows the new certificate", "pass", _ROTATION),
    Mutant("http-no-sessions", "reload: HTTP takes up no session again", "pass", ("tests/server/http/test_guard.py",)),
    Mutant("certificate-reloaded", "reload: gRPC shows the new certificate", "pass", _ROTATION),
    Mutant("policy-no-empty-token", "access: an empty token is nobody's", "if False:", _POLICY),
    Mutant("policy-one-caller", "access: a token is one caller's", "if False:", _POLICY),
    Mutant(
        "reload-settled",
        "reload: who still writes is not overtaken",
        "if contents == self._settled:",
        ("tests/server/security/test_watching.py",),
    ),
)
