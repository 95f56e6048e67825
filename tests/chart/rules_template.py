"""The rules as a template, which ends rendering with all that is wrong, a line each."""

import json
from collections.abc import Sequence

from chart.rule import Rule


def template(table: Sequence[Rule]) -> str:
    """The template that ends rendering with all that is wrong, a line each."""
    lines = ['{{- define "inferry.rules" -}}', "{{- $v := .Values }}", "{{- $wrong := list }}"]
    for name, source in (("$d", "serverDefaults"), ("$s", "effective"), ("$f", "facts")):
        lines.append(f'{{{{- {name} := include "inferry.{source}" . | fromYaml }}}}')
    for rule in table:
        lines += [f"{{{{- range {rule.each} }}}}"] if rule.each else []
        lines.append(f"{{{{- if {rule.wrong} }}}}")
        came = "".join(f" ({one})" if " " in one and not one.startswith("(") else f" {one}" for one in rule.came)
        lines.append(f"{{{{- $wrong = append $wrong (printf {json.dumps(rule.message)}{came}) }}}}")
        lines.append("{{- end }}")
        lines += ["{{- end }}"] if rule.each else []
    lines.append("{{- if $wrong }}")
    lines.append('{{- fail (printf "these values cannot be together:\\n- %s" (join "\\n- " ($wrong | uniq))) }}')
    return "\n".join([*lines, "{{- end }}", "{{- end }}"]) + "\n"
