"""Rules of pods: how many there are at a time, how they are exchanged, and on which disk they read."""

from chart.rule import Rule

_ONE = {"replicas": 1, "strategy": {"type": "Recreate"}}

POD_RULES = (
    Rule(
        "and $f.scaled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas))",
        "autoscaling.minReplicas is %v and autoscaling.maxReplicas is %v: expected at least as many at most",
        ("$v.autoscaling.minReplicas", "$v.autoscaling.maxReplicas"),
        {"autoscaling.kind": "hpa", "autoscaling.minReplicas": 5, "autoscaling.maxReplicas": 4},
        {"autoscaling.kind": "hpa", "autoscaling.minReplicas": 4, "autoscaling.maxReplicas": 4},
    ),
    Rule(
        "and $f.diskOfOneNode (gt (int $f.together) 1)",
        "models.claim.accessModes is %v, which one node's pods can mount, and %v pods may be there at a time (%v): "
        "expected ReadWriteMany among the modes, or replicas 1, autoscaling.kind none and strategy.type Recreate",
        ('join ", " $v.models.claim.accessModes', "$f.together", "$f.togetherBecause"),
        {"models.claim.accessModes": ["ReadWriteOnce"], "replicas": 2},
        {"models.claim.accessModes": ["ReadWriteOnce"], **_ONE},
    ),
    Rule(
        "and $f.diskOfOneNode (gt (int $f.most) 1) $f.scaled",
        "models.claim.accessModes is %v, and autoscaling.maxReplicas is %v: expected ReadWriteMany among the modes",
        ('join ", " $v.models.claim.accessModes', "$f.most"),
        {"models.claim.accessModes": ["ReadWriteOncePod"], "autoscaling.kind": "keda", "autoscaling.minReplicas": 1},
        {"models.claim.accessModes": ["ReadWriteMany"], "autoscaling.kind": "keda", "autoscaling.minReplicas": 1},
    ),
    Rule(
        "and (gt (int $f.least) 1) (ge (int $f.budget) (int $f.least))",
        "disruptionBudget.maxUnavailable is %v, and there may be %v servers: all of them could be put out at once; "
        "expected fewer",
        ("$v.disruptionBudget.maxUnavailable", "$f.least"),
        {"disruptionBudget.maxUnavailable": "100%"},
        {"disruptionBudget.maxUnavailable": "50%"},
    ),
    Rule(
        "and (not $f.recreated) $f.noSurge $f.noneLess",
        "strategy.rollingUpdate has maxSurge %v and maxUnavailable %v: no pod could ever be exchanged; expected one "
        "of them above 0",
        ("$f.surge", "$f.unavailable"),
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
    ),
    Rule(
        "and (not $f.recreated) (gt (int $f.least) 1) "
        '(ge (include "inferry.podsOf" (list $f.unavailable $f.least) | float64) (float64 $f.least))',
        "strategy.rollingUpdate.maxUnavailable is %v, and there may be %v servers: all of them could be exchanged at "
        "once; expected fewer",
        ("$f.unavailable", "$f.least"),
        {"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}},
        {"strategy": {"rollingUpdate": {"maxUnavailable": "50%"}}},
    ),
    Rule(
        'and $f.recreated (hasKey $v.strategy "rollingUpdate")',
        "strategy.type is Recreate and strategy.rollingUpdate is %v: leave one of them out",
        ("toJson $v.strategy.rollingUpdate",),
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"type": "Recreate"}},
    ),
    Rule(
        "and $v.priority.enabled $v.priority.className",
        "priority.className is %v, a class that is there, and priority.enabled makes one: leave one of them out",
        ("$v.priority.className",),
        {"priority.enabled": True, "priority.className": "high"},
        {"priority.enabled": True},
    ),
    Rule(
        'or (and (ne (.operator | default "Equal") "Exists") (not .key)) '
        '(and (eq (.operator | default "Equal") "Exists") .value) '
        '(and (hasKey . "tolerationSeconds") (ne (.effect | default "") "NoExecute"))',
        "tolerations has %v: expected a key, or operator Exists for all; no value with Exists; and tolerationSeconds "
        "with the effect NoExecute alone",
        ("toJson .",),
        {"tolerations": [{"effect": "NoSchedule"}]},
        {"tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]},
        each="$v.tolerations",
    ),
)
