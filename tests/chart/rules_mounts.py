"""Rules of variables, volumes and mounts that the values add, and of the files that settings name in them."""

from typing import Any

from chart.rule import POLICY_MOUNTED, Rule
from chart.settings_schema import path_settings

_MOUNTS = POLICY_MOUNTED["volumeMounts"]
_TWICE: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("ownVolumes", "of volumes, the names",
     {"volumes": [{"name": "a", "emptyDir": {}}] * 2}, {"volumes": [{"name": "a", "emptyDir": {}}]}),
    ("ownMounts", "of volumeMounts, the paths",
     {**POLICY_MOUNTED, "volumeMounts": [*_MOUNTS, {"name": "models", "mountPath": "/policy/"}]},
     {**POLICY_MOUNTED, "volumeMounts": [*_MOUNTS, {"name": "models", "mountPath": "/policy2"}]}),
    ("ownVariables", "of env, the variables",
     {"env": [{"name": "TZ", "value": "UTC"}, {"name": "TZ", "value": "CET"}]},
     {"env": [{"name": "TZ", "value": "UTC"}, {"name": "LANG", "value": "C"}]}),
)  # fmt: skip

MOUNT_RULES = (
    Rule(
        'hasPrefix "INFERRY_" .name',
        "env has %v: the server's settings are under settings, where times and probes follow them; expected "
        "settings.%v",
        (".name", 'trimPrefix "INFERRY_" .name | lower'),
        {"env": [{"name": "INFERRY_DRAIN_TIMEOUT_S", "value": "300"}]},
        {"settings.drain_timeout_s": 300},
        each="$v.env",
    ),
    Rule(
        "not (has .name $f.volumes)",
        "volumeMounts has %v at %v, and there is no such volume: expected one of %v",
        (".name", ".mountPath", 'join ", " $f.volumes'),
        {"volumeMounts": [{"name": "polices", "mountPath": "/policy"}], "volumes": POLICY_MOUNTED["volumes"]},
        POLICY_MOUNTED,
        each="$v.volumeMounts",
    ),
    *(
        Rule(
            f"ne (len $f.{name}) (len (uniq $f.{name}))",
            f"{what} %v are there twice: expected each once",
            (f'join ", " $f.{name}',),
            planted,
            right,
        )
        for name, what, planted, right in _TWICE
    ),
    *(
        Rule(
            f'and $v.settings.{name} (ne (include "inferry.holdsFile" (list $ $v.settings.{name})) "yes")',
            f"settings.{name} is %v, and no file can be there: expected a path below /models, below /tls with "
            "tls.enabled, or below one of volumeMounts whose volume is no emptyDir; there are %v",
            (f"$v.settings.{name}", 'join ", " $f.mounts'),
            {f"settings.{name}": "/policy/file", "tls.enabled": name == "tls_client_ca"},
            {f"settings.{name}": "/policy/file", "tls.enabled": name == "tls_client_ca", **POLICY_MOUNTED},
        )
        for name in path_settings()
        if name not in ("tls_certificate", "tls_private_key")  # of tls.enabled
    ),
)
