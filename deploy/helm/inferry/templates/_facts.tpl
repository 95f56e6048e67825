{{- /* Every setting: the server's own default, over it what the manifests set, over that the values. */}}
{{- define "inferry.effective" -}}
{{- $settings := include "inferry.serverDefaults" . | fromYaml }}
{{- range $variable, $text := include "inferry.manifestSettings" . | fromYaml }}
{{- $_ := set $settings ($variable | trimPrefix "INFERRY_" | lower) $text }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- $_ := set $settings $name $value }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- /* An amount as Kubernetes writes it, in bytes. */}}
{{- define "inferry.bytes" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 }}
{{- range $power, $unit := list "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" }}
{{- $bytes := 1 }}
{{- range until (add1 $power | int) }}{{ $bytes = mul $bytes 1024 }}{{ end }}
{{- $_ := set $units $unit $bytes }}
{{- end }}
{{- $text := include "inferry.text" . }}
{{- printf "%.0f" (mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[A-Za-z]*$" $text) | default 0 | float64)) }}
{{- end }}

{{- /* Pods of a number or a percentage: which, of how many, rounded up. */}}
{{- define "inferry.podsOf" -}}
{{- $some := index . 0 | toString }}
{{- if hasSuffix "%" $some }}
{{- ceil (divf (mulf (trimSuffix "%" $some | float64) (index . 1 | float64)) 100) }}
{{- else }}
{{- $some | float64 }}
{{- end }}
{{- end }}

{{- /* "yes" where a file can be: root, path. What is mounted from an emptyDir is empty but for the models' copy. */}}
{{- define "inferry.holdsFile" -}}
{{- $values := (index . 0).Values }}
{{- $path := index . 1 }}
{{- $empty := list "tmp" }}
{{- range $values.volumes }}
{{- if hasKey . "emptyDir" }}{{ $empty = append $empty .name }}{{ end }}
{{- end }}
{{- $mounts := list (dict "name" "models" "mountPath" "/models") }}
{{- if $values.tls.enabled }}{{ $mounts = append $mounts (dict "name" "tls" "mountPath" "/tls") }}{{ end }}
{{- if $values.tokens.enabled }}{{ $mounts = append $mounts (dict "name" "access" "mountPath" "/access") }}{{ end }}
{{- $found := hasPrefix "/etc/ssl/certs/" $path }}
{{- range concat $mounts $values.volumeMounts }}
{{- $below := hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path }}
{{- $itself := and (hasKey . "subPath") (eq .mountPath $path) }}
{{- if and (not (has .name $empty)) (or $below $itself) }}{{ $found = true }}{{ end }}
{{- end }}
{{- if $found }}yes{{ end }}
{{- end }}

{{- /* What follows from the values, for the rules. */}}
{{- define "inferry.facts" -}}
{{- $v := .Values }}
{{- $made := include "inferry.manifestFacts" . | fromYaml }}
{{- $settings := include "inferry.effective" . | fromYaml }}
{{- $defaults := include "inferry.serverDefaults" . | fromYaml }}
{{- $scaled := ne $v.autoscaling.kind "none" }}
{{- $least := ternary $v.autoscaling.minReplicas $v.replicas $scaled | int }}
{{- $most := ternary $v.autoscaling.maxReplicas $v.replicas $scaled | int }}
{{- $recreated := eq (dig "type" "RollingUpdate" $v.strategy) "Recreate" }}
{{- $surge := ternary (dig "rollingUpdate" "maxSurge" "25%" $v.strategy) (ternary 0 1 $v.gpu.enabled) (not (empty $v.strategy)) }}
{{- $unavailable := ternary (dig "rollingUpdate" "maxUnavailable" "25%" $v.strategy) (ternary 1 0 $v.gpu.enabled) (not (empty $v.strategy)) }}
{{- $more := ternary 0 (include "inferry.podsOf" (list $surge $most) | int) $recreated }}
{{- $modes := $v.models.claim.accessModes }}
{{- $shared := or (has "ReadWriteMany" $modes) (has "ReadOnlyMany" $modes) }}
{{- $limits := dig "limits" (dict) $v.resources }}
{{- $memory := $made.memory }}
{{- if $v.resources }}{{ $memory = dig "memory" "not set" $limits }}{{ end }}
{{- $gpus := false }}
{{- range $name, $amount := $limits }}
{{- if and (hasPrefix "nvidia.com/" $name) (regexMatch "^[1-9][0-9]*$" (include "inferry.text" $amount)) }}{{ $gpus = true }}{{ end }}
{{- end }}
{{- $changed := list }}
{{- range list "gpu_mem_limit_bytes" "cudnn_conv_algo_search" "tf32" "cuda_graphs" "prefer_nhwc" }}
{{- if ne (include "inferry.text" (get $settings .)) (include "inferry.text" (get $defaults .)) }}{{ $changed = append $changed . }}{{ end }}
{{- end }}
{{- $volumes := list "models" "tmp" }}
{{- $paths := list "/models" }}
{{- if $v.tls.enabled }}{{ $volumes = append $volumes "tls" }}{{ $paths = append $paths "/tls" }}{{ end }}
{{- if $v.tokens.enabled }}{{ $volumes = append $volumes "access" }}{{ $paths = append $paths "/access" }}{{ end }}
{{- $ownVolumes := list }}
{{- range $v.volumes }}{{ $ownVolumes = append $ownVolumes .name }}{{ end }}
{{- $ownMounts := list }}
{{- range $v.volumeMounts }}{{ $ownMounts = append $ownMounts (trimSuffix "/" .mountPath) }}{{ end }}
{{- $ownVariables := list }}
{{- range $v.env }}{{ $ownVariables = append $ownVariables .name }}{{ end }}
{{- $name := include "inferry.fullname" . }}
{{- dict
  "scaled" $scaled "least" $least "most" $most
  "recreated" $recreated "surge" $surge "unavailable" $unavailable
  "noSurge" (has (toString $surge) (list "0" "0%")) "noneLess" (has (toString $unavailable) (list "0" "0%"))
  "together" (add $most $more)
  "togetherBecause" (ternary "of all replicas" (printf "%d replicas, and %d more while they are exchanged" $most $more) (eq $more 0))
  "diskOfOneNode" (and (eq $v.models.from "claim") (not (empty $modes)) (not $shared))
  "budget" (include "inferry.podsOf" (list $v.disruptionBudget.maxUnavailable $least) | float64)
  "gpus" $gpus "cores" (dig "cpu" "not set" $limits)
  "memory" $memory "memoryBytes" (include "inferry.bytes" $memory)
  "leastBytes" (printf "%.0f" (addf $made.atRestBytes (mulf 3 $settings.max_queue_bytes)))
  "changedForGpus" $changed "usualPolicy" $made.policy
  "services" (list (printf "%s-server" $name) (printf "%s-server-vip" $name))
  "heldBack" (or $v.networkPolicy.enabled (eq $v.models.from "bucket"))
  "volumes" (concat $volumes $ownVolumes) "mounts" (concat $paths $ownMounts)
  "ownVolumes" $ownVolumes "ownMounts" $ownMounts "ownVariables" $ownVariables
  "startSeconds" ($v.startSeconds | default $made.startSeconds) "readinessSeconds" $made.readinessSeconds
  | toYaml }}
{{- end }}
