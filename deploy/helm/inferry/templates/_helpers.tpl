{{- /* What the names of all objects begin with: a DNS label that a Service may have, with room for the longest ending.
Two releases never have the same: where the name is not the release's own, or could be what another becomes, its digest
is added. */}}
{{- define "inferry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else }}
{{- $own := ternary .Release.Name (printf "%s-inferry" .Release.Name) (contains "inferry" .Release.Name) }}
{{- $name := replace "." "-" $own }}
{{- if not (regexMatch "^[a-z]" $name) }}{{ $name = printf "inferry-%s" $name }}{{ end }}
{{- if or (ne $name $own) (gt (len $name) 40) (hasSuffix "-inferry" .Release.Name) }}
{{- $name = printf "%s-%s" ($name | trunc 31 | trimAll "-") (.Release.Name | sha256sum | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}
{{- end }}

{{- /* An image: root and the name that the manifests have. The server's may be another, other images go with it. */}}
{{- define "inferry.image" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $image := $root.Values.image }}
{{- $version := printf ":%s" $root.Chart.AppVersion }}
{{- if hasPrefix "inferry-server" $name }}
{{- $name = $image.repository | default $name }}
{{- if $image.tag }}{{ $version = printf ":%s" $image.tag }}{{ end }}
{{- if $image.digest }}{{ $version = printf "@%s" $image.digest }}{{ end }}
{{- end }}
{{- if $image.registry }}{{ trimSuffix "/" $image.registry }}/{{ end }}{{ $name }}{{ $version }}
{{- end }}

{{- /* A setting as a variable has it: whole numbers without an exponent, which Helm would give large ones. */}}
{{- define "inferry.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) (. | float64)) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /* The variables of the server: what the manifests set, and over it the values. */}}
{{- define "inferry.settings" -}}
{{- $variables := include "inferry.manifestSettings" . | fromYaml }}
{{- range $name, $value := .Values.settings }}
{{- $_ := set $variables (printf "INFERRY_%s" (upper $name)) (include "inferry.text" $value) }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{- /* A setting of the server, or its own default: root, name, default. */}}
{{- define "inferry.setting" -}}
{{- $variables := include "inferry.settings" (index . 0) | fromYaml }}
{{- get $variables (index . 1) | default (index . 2) }}
{{- end }}

{{- /* Both times of draining, and five seconds to close down. */}}
{{- define "inferry.graceSeconds" -}}
{{- $delay := include "inferry.setting" (list . "INFERRY_DRAIN_DELAY_S" "0") | float64 }}
{{- $timeout := include "inferry.setting" (list . "INFERRY_DRAIN_TIMEOUT_S" "30") | float64 }}
{{- add (ceil (addf $delay $timeout)) 5 }}
{{- end }}

{{- /* Ten seconds each, and three more than a drain takes. */}}
{{- define "inferry.livenessFailures" -}}
{{- add (ceil (divf (include "inferry.setting" (list . "INFERRY_DRAIN_TIMEOUT_S" "30") | float64) 10)) 3 }}
{{- end }}

{{- /* Spread constraints of the values: of the release's own servers, where they name no others. */}}
{{- define "inferry.spread" -}}
{{- $own := dict "app.kubernetes.io/name" "inferry" "app.kubernetes.io/component" "server" "app.kubernetes.io/instance" .Release.Name }}
{{- $found := list }}
{{- range .Values.topologySpreadConstraints }}
{{- $found = append $found (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" (dict "matchLabels" $own))) }}
{{- end }}
{{- toYaml $found }}
{{- end }}
