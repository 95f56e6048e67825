{{- /* What the names of all objects begin with; room is left for the longest ending. */}}
{{- define "inferry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "inferry" .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-inferry" .Release.Name | trunc 40 | trimSuffix "-" }}
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

{{- /* Values that cannot be together; rendering ends with what to do. */}}
{{- define "inferry.checks" -}}
{{- $load := include "inferry.setting" (list . "INFERRY_MODEL_LOAD_TIMEOUT_S" "120") | float64 }}
{{- $start := .Values.startSeconds | default (ternary 1800 900 .Values.gpu.enabled) | float64 }}
{{- if lt $start $load }}
{{- fail (printf "settings.model_load_timeout_s is %v, and a pod has %v seconds to start: set startSeconds to more" $load $start) }}
{{- end }}
{{- if le (include "inferry.setting" (list . "INFERRY_DRAIN_DELAY_S" "0") | float64) 6.0 }}
{{- fail "settings.drain_delay_s must be more than 6, which is how long a pod that is not ready may still get calls" }}
{{- end }}
{{- if and .Values.priority.enabled .Values.priority.className }}
{{- fail "priority.className is a class that is there, priority.enabled makes one: leave one of them out" }}
{{- end }}
{{- if and .Values.gateway.canary.weight (not .Values.gateway.canary.service) }}
{{- fail "gateway.canary.weight needs gateway.canary.service, the Service of the other release" }}
{{- end }}
{{- $held := or .Values.networkPolicy.enabled (eq .Values.models.from "bucket") }}
{{- if and .Values.settings.trace_endpoint $held (not .Values.networkPolicy.egress) (not .Values.models.bucket.egress) }}
{{- fail "settings.trace_endpoint is a collector that the network policy holds back: name it and DNS in networkPolicy.egress, or in models.bucket.egress" }}
{{- end }}
{{- end }}
