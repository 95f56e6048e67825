"""Rules of what lies between callers and servers: network policies, monitors, and a gateway."""

from chart.rule import COLLECTOR, Rule

_CANARY = {"gateway.canary.service": "next-inferry-server-vip", "gateway.canary.weight": 10}
_OUT = [{"ports": [{"port": 4317}, {"port": 53, "protocol": "UDP"}]}]

REACH_RULES = (
    Rule(
        "and (not $v.networkPolicy.enabled) (or $v.networkPolicy.clients $v.networkPolicy.egress)",
        "networkPolicy.enabled is false, and networkPolicy has clients %v and egress %v: everybody would reach the "
        "servers; expected networkPolicy.enabled true, or neither of them",
        ("toJson $v.networkPolicy.clients", "toJson $v.networkPolicy.egress"),
        {"networkPolicy.clients": [{"podSelector": {}}]},
        {"networkPolicy.clients": [{"podSelector": {}}], "networkPolicy.enabled": True},
    ),
    Rule(
        "and (not $v.monitoring.enabled) $v.monitoring.labels",
        "monitoring.enabled is false, and monitoring.labels is %v: nothing would be watched; expected "
        "monitoring.enabled true, or no labels",
        ("toJson $v.monitoring.labels",),
        {"monitoring.labels": {"release": "prometheus"}},
        {"monitoring.labels": {"release": "prometheus"}, "monitoring.enabled": True},
    ),
    Rule(
        "and $v.monitoring.enabled $v.settings.tls_client_ca (not $v.settings.metrics_without_certificate)",
        "settings.tls_client_ca is %v and monitoring.enabled is true: Prometheus shows no certificate, and would be "
        "refused; expected settings.metrics_without_certificate true too",
        ("$v.settings.tls_client_ca",),
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True, "monitoring.enabled": True},
        {
            "settings.tls_client_ca": "/tls/ca.crt",
            "tls.enabled": True,
            "monitoring.enabled": True,
            "settings.metrics_without_certificate": True,
        },
    ),
)

GATEWAY_RULES = (
    *(
        Rule(
            f"and $v.{value} $v.settings.tls_client_ca",
            f"settings.tls_client_ca is %v and {value} is true: the gateway shows no certificate, and every call "
            "through it would fail; expected tokens.enabled, or no gateway",
            ("$v.settings.tls_client_ca",),
            {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True, value: True},
            {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True},
        )
        for value in ("gateway.enabled", "gateway.ofAnotherRelease")
    ),
    Rule(
        "and $v.gateway.ofAnotherRelease (or $v.gateway.enabled (not $v.tls.enabled))",
        "gateway.ofAnotherRelease is true, gateway.enabled is %v and tls.enabled is %v: it tells another release's "
        "gateway that these servers speak TLS; expected tls.enabled true and no gateway of their own, or false",
        ("$v.gateway.enabled", "$v.tls.enabled"),
        {"gateway.ofAnotherRelease": True},
        {"gateway.ofAnotherRelease": True, "tls.enabled": True},
    ),
    Rule(
        "and (not $v.gateway.enabled) (or $v.gateway.canary.service $v.gateway.canary.weight)",
        "gateway.canary has service %q and weight %v, and gateway.enabled is false: nothing would shift calls; "
        "expected gateway.enabled true",
        ("$v.gateway.canary.service", "$v.gateway.canary.weight"),
        _CANARY,
        {**_CANARY, "gateway.enabled": True},
    ),
    Rule(
        "and $v.gateway.canary.weight (not $v.gateway.canary.service)",
        "gateway.canary.weight is %v: it needs gateway.canary.service, the Service of the other release",
        ("$v.gateway.canary.weight",),
        {"gateway.enabled": True, "gateway.canary.weight": 10},
        {**_CANARY, "gateway.enabled": True},
    ),
    Rule(
        "has $v.gateway.canary.service $f.services",
        "gateway.canary.service is %v, a Service of this release itself: expected another release's",
        ("$v.gateway.canary.service",),
        {"gateway.enabled": True, "gateway.canary.service": "inferry-server-vip"},
        {"gateway.enabled": True, "gateway.canary.service": "inferry-2-server-vip"},
    ),
    Rule(
        "and $v.settings.trace_endpoint $f.heldBack (not $v.networkPolicy.egress) (not $v.models.bucket.egress)",
        "settings.trace_endpoint is %v, a collector that the network policy holds back: name it and DNS in "
        "networkPolicy.egress, or in models.bucket.egress",
        ("$v.settings.trace_endpoint",),
        {"settings.trace_endpoint": COLLECTOR, "networkPolicy.enabled": True},
        {"settings.trace_endpoint": COLLECTOR, "networkPolicy.enabled": True, "networkPolicy.egress": _OUT},
    ),
)
