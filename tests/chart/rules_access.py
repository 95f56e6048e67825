"""Rules of who may call, and how: TLS, client certificates, and tokens."""

from chart.rule import POLICY_MOUNTED, Rule

_POLICY = {"settings.access_policy": "/policy/policy.toml"}

TLS_RULES = (
    Rule(
        'and $v.tls.enabled (eq (toString $s.http_inference) "on")',
        "settings.http_inference is %v and tls.enabled is true: the HTTP port would speak TLS, and probes and "
        "Prometheus ask it in the clear; expected auto or off",
        ("$s.http_inference",),
        {"tls.enabled": True, "settings.http_inference": "on"},
        {"tls.enabled": True, "settings.http_inference": "auto"},
    ),
    Rule(
        "or $v.settings.tls_certificate $v.settings.tls_private_key",
        "settings.tls_certificate is %q and settings.tls_private_key is %q: tls.enabled sets them, and the Services "
        "follow it; expected tls.enabled and tls.secretName instead",
        ('$v.settings.tls_certificate | default ""', '$v.settings.tls_private_key | default ""'),
        {"settings.tls_certificate": "/models/tls.crt", "settings.tls_private_key": "/models/tls.key"},
        {"tls.enabled": True, "tls.secretName": "own-tls"},
    ),
    Rule(
        "and $v.settings.tls_client_ca (not $v.tls.enabled)",
        "settings.tls_client_ca is %v and tls.enabled is false: nobody would be asked for a certificate; expected "
        "tls.enabled true",
        ("$v.settings.tls_client_ca",),
        {"settings.tls_client_ca": "/models/ca.crt"},
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True},
    ),
    Rule(
        "and $v.settings.metrics_without_certificate (not $v.settings.tls_client_ca)",
        "settings.metrics_without_certificate is %v without settings.tls_client_ca: nobody is asked for a certificate; "
        "leave it out",
        ("$v.settings.metrics_without_certificate",),
        {"settings.metrics_without_certificate": True, "tls.enabled": True},
        {
            "settings.metrics_without_certificate": True,
            "tls.enabled": True,
            "settings.tls_client_ca": "/tls/ca.crt",
        },
    ),
    Rule(
        "and (not $v.tls.enabled) (or $v.tls.secretName $v.tls.issuer $v.tls.dnsNames)",
        "tls.enabled is false, and tls has secretName %q, issuer %v and dnsNames %v: calls would be in the clear; "
        "expected tls.enabled true, or none of them",
        ("$v.tls.secretName", "toJson $v.tls.issuer", "toJson $v.tls.dnsNames"),
        {"tls.secretName": "own-tls"},
        {"tls.secretName": "own-tls", "tls.enabled": True},
    ),
    Rule(
        "and $v.tls.secretName (or $v.tls.issuer $v.tls.dnsNames)",
        "tls.secretName is %v, a Secret that is there, and tls has issuer %v and dnsNames %v for one that is to be "
        "made: leave one of them out",
        ("$v.tls.secretName", "toJson $v.tls.issuer", "toJson $v.tls.dnsNames"),
        {"tls.enabled": True, "tls.secretName": "own-tls", "tls.issuer": {"name": "company"}},
        {"tls.enabled": True, "tls.issuer": {"name": "company"}},
    ),
)

TOKEN_RULES = (
    Rule(
        "and $v.tokens.enabled $v.settings.access_policy",
        "settings.access_policy is %v and tokens.enabled sets it: leave one of them out",
        ("$v.settings.access_policy",),
        {"tokens.enabled": True, **_POLICY, **POLICY_MOUNTED},
        {**_POLICY, **POLICY_MOUNTED},
    ),
    Rule(
        "and (not $v.tokens.enabled) (or $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy))",
        "tokens.enabled is false, and tokens has secretName %q and a policy %q: everybody could make every call; "
        "expected tokens.enabled true, or neither of them",
        ("$v.tokens.secretName", "$v.tokens.policy"),
        {"tokens.secretName": "own-policy"},
        {"tokens.secretName": "own-policy", "tokens.enabled": True},
    ),
    Rule(
        "and $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy)",
        "tokens.secretName is %v, a Secret that is there, and tokens.policy is one for a Secret that is to be made: "
        "leave one of them out",
        ("$v.tokens.secretName",),
        {"tokens.enabled": True, "tokens.secretName": "own-policy", "tokens.policy": 'anonymous = ["infer"]'},
        {"tokens.enabled": True, "tokens.policy": 'anonymous = ["infer"]'},
    ),
)
