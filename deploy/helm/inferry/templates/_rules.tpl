{{- /* made by `make chart` from deploy/k8s */}}
{{- define "inferry.rules" -}}
{{- $v := .Values }}
{{- $wrong := list }}
{{- $d := include "inferry.serverDefaults" . | fromYaml }}
{{- $s := include "inferry.effective" . | fromYaml }}
{{- $f := include "inferry.facts" . | fromYaml }}
{{- range keys $v.podAnnotations | sortAlpha }}
{{- if has . (list "checksum/settings" "prometheus.io/path" "prometheus.io/port" "prometheus.io/scrape") }}
{{- $wrong = append $wrong (printf "podAnnotations has %v, which the chart writes itself and its other objects go by: expected another" .) }}
{{- end }}
{{- end }}
{{- range keys $v.podLabels | sortAlpha }}
{{- if has . (list "app.kubernetes.io/component" "app.kubernetes.io/instance" "app.kubernetes.io/managed-by" "app.kubernetes.io/name" "app.kubernetes.io/part-of" "app.kubernetes.io/version") }}
{{- $wrong = append $wrong (printf "podLabels has %v, which the chart writes itself and its other objects go by: expected another" .) }}
{{- end }}
{{- end }}
{{- range $v.volumeMounts }}
{{- if has (trimSuffix "/" .mountPath) (list "/access" "/models" "/tls" "/tmp") }}
{{- $wrong = append $wrong (printf "volumeMounts has %v, which the chart writes itself and its other objects go by: expected another" (trimSuffix "/" .mountPath)) }}
{{- end }}
{{- end }}
{{- range $v.volumes }}
{{- if has (trimSuffix "/" .name) (list "access" "models" "tls" "tmp") }}
{{- $wrong = append $wrong (printf "volumes has %v, which the chart writes itself and its other objects go by: expected another" (trimSuffix "/" .name)) }}
{{- end }}
{{- end }}
{{- range keys $v.monitoring.labels | sortAlpha }}
{{- if has . (list "app.kubernetes.io/component" "app.kubernetes.io/instance" "app.kubernetes.io/managed-by" "app.kubernetes.io/name" "app.kubernetes.io/part-of" "app.kubernetes.io/version") }}
{{- $wrong = append $wrong (printf "monitoring.labels has %v, which the chart writes itself and its other objects go by: expected another" .) }}
{{- end }}
{{- end }}
{{- if and $f.scaled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- $wrong = append $wrong (printf "autoscaling.minReplicas is %v and autoscaling.maxReplicas is %v: expected at least as many at most" $v.autoscaling.minReplicas $v.autoscaling.maxReplicas) }}
{{- end }}
{{- if and $f.diskOfOneNode (gt (int $f.together) 1) }}
{{- $wrong = append $wrong (printf "models.claim.accessModes is %v, which one node's pods can mount, and %v pods may be there at a time (%v): expected ReadWriteMany among the modes, or replicas 1, autoscaling.kind none and strategy.type Recreate" (join ", " $v.models.claim.accessModes) $f.together $f.togetherBecause) }}
{{- end }}
{{- if and $f.diskOfOneNode (gt (int $f.most) 1) $f.scaled }}
{{- $wrong = append $wrong (printf "models.claim.accessModes is %v, and autoscaling.maxReplicas is %v: expected ReadWriteMany among the modes" (join ", " $v.models.claim.accessModes) $f.most) }}
{{- end }}
{{- if and (gt (int $f.least) 1) (ge (int $f.budget) (int $f.least)) }}
{{- $wrong = append $wrong (printf "disruptionBudget.maxUnavailable is %v, and there may be %v servers: all of them could be put out at once; expected fewer" $v.disruptionBudget.maxUnavailable $f.least) }}
{{- end }}
{{- if and (not $f.recreated) $f.noSurge $f.noneLess }}
{{- $wrong = append $wrong (printf "strategy.rollingUpdate has maxSurge %v and maxUnavailable %v: no pod could ever be exchanged; expected one of them above 0" $f.surge $f.unavailable) }}
{{- end }}
{{- if and (not $f.recreated) (gt (int $f.least) 1) (ge (include "inferry.podsOf" (list $f.unavailable $f.least) | float64) (float64 $f.least)) }}
{{- $wrong = append $wrong (printf "strategy.rollingUpdate.maxUnavailable is %v, and there may be %v servers: all of them could be exchanged at once; expected fewer" $f.unavailable $f.least) }}
{{- end }}
{{- if and $f.recreated (hasKey $v.strategy "rollingUpdate") }}
{{- $wrong = append $wrong (printf "strategy.type is Recreate and strategy.rollingUpdate is %v: leave one of them out" (toJson $v.strategy.rollingUpdate)) }}
{{- end }}
{{- if and $v.priority.enabled $v.priority.className }}
{{- $wrong = append $wrong (printf "priority.className is %v, a class that is there, and priority.enabled makes one: leave one of them out" $v.priority.className) }}
{{- end }}
{{- range $v.tolerations }}
{{- if or (and (ne (.operator | default "Equal") "Exists") (not .key)) (and (eq (.operator | default "Equal") "Exists") .value) (and (hasKey . "tolerationSeconds") (ne (.effect | default "") "NoExecute")) }}
{{- $wrong = append $wrong (printf "tolerations has %v: expected a key, or operator Exists for all; no value with Exists; and tolerationSeconds with the effect NoExecute alone" (toJson .)) }}
{{- end }}
{{- end }}
{{- if and (eq $v.models.from "image") (not $v.models.image.reference) }}
{{- $wrong = append $wrong (printf "models.from is %v and models.image.reference is empty: expected the image that has the models" $v.models.from) }}
{{- end }}
{{- if and (eq $v.models.from "bucket") (not $v.models.bucket.url) }}
{{- $wrong = append $wrong (printf "models.from is %v and models.bucket.url is empty: expected the folder with the repository, as s3://..." $v.models.from) }}
{{- end }}
{{- if and (ne $v.models.from "bucket") (or $v.models.bucket.url $v.models.bucket.secretName $v.models.bucket.egress) }}
{{- $wrong = append $wrong (printf "models.from is %v, and models.bucket has url %q, secretName %q and egress %v: nothing would be copied; expected models.from bucket, or none of them" $v.models.from $v.models.bucket.url $v.models.bucket.secretName (toJson $v.models.bucket.egress)) }}
{{- end }}
{{- if and (ne $v.models.from "image") $v.models.image.reference }}
{{- $wrong = append $wrong (printf "models.from is %v, and models.image.reference is %v: no image would be mounted; expected models.from image, or no reference" $v.models.from $v.models.image.reference) }}
{{- end }}
{{- if and (ne $v.models.from "claim") (or $v.models.claim.name $v.models.claim.storageClassName $v.models.claim.accessModes) }}
{{- $wrong = append $wrong (printf "models.from is %v, and models.claim has name %q, storageClassName %q and accessModes %v: there would be no claim; expected models.from claim, or none of them" $v.models.from $v.models.claim.name $v.models.claim.storageClassName (toJson $v.models.claim.accessModes)) }}
{{- end }}
{{- if or (and (eq $v.image.tag "latest") (not $v.image.digest)) (and (eq $v.models.from "image") (hasSuffix ":latest" $v.models.image.reference)) }}
{{- $wrong = append $wrong (printf "image.tag is %q and models.image.reference %q: what the tag latest means changes, and no roll-back brings it back; expected the tag of a version, or a digest" $v.image.tag $v.models.image.reference) }}
{{- end }}
{{- if and $v.gpu.enabled $v.resources (not $f.gpus) }}
{{- $wrong = append $wrong (printf "gpu.enabled is true and resources.limits is %v: expected a whole number of nvidia.com/gpu, or of a part such as nvidia.com/mig-1g.10gb, among them" (toJson $v.resources.limits)) }}
{{- end }}
{{- if and $f.gpus (not $v.gpu.enabled) }}
{{- $wrong = append $wrong (printf "resources.limits is %v and gpu.enabled is false: a GPU for the image without CUDA; expected gpu.enabled true" (toJson $v.resources.limits)) }}
{{- end }}
{{- if and (not $v.gpu.enabled) (has (toString $s.provider) (list "cuda" "tensorrt")) }}
{{- $wrong = append $wrong (printf "settings.provider is %v and gpu.enabled is false: the server would end, as there is no GPU; expected gpu.enabled true, or another provider" $s.provider) }}
{{- end }}
{{- if and $v.gpu.enabled (eq (toString $s.provider) "cpu") }}
{{- $wrong = append $wrong (printf "settings.provider is %v and gpu.enabled is true: the GPU would idle; expected gpu.enabled false, or another provider" $s.provider) }}
{{- end }}
{{- if and $v.resources.requests (ne (toJson $v.resources.requests) (toJson $v.resources.limits)) }}
{{- $wrong = append $wrong (printf "resources.requests is %v and resources.limits is %v: a server counts on the cores of its limit; expected the same, or limits alone" (toJson $v.resources.requests) (toJson $v.resources.limits)) }}
{{- end }}
{{- if and $v.resources (not (regexMatch "^[1-9][0-9]*(000m)?$" (toString $f.cores))) }}
{{- $wrong = append $wrong (printf "resources.limits.cpu is %v: a server computes on whole cores; expected a whole number" $f.cores) }}
{{- end }}
{{- if lt (float64 $f.memoryBytes) (float64 $f.leastBytes) }}
{{- $wrong = append $wrong (printf "resources.limits.memory is %v and settings.max_queue_bytes is %v: at rest, two lanes of a model and pictures to decode may take %v MiB; expected more memory, or less that waits" $f.memory (include "inferry.text" $s.max_queue_bytes) (divf $f.leastBytes 1048576 | floor | int64)) }}
{{- end }}
{{- if and $v.tls.enabled (eq (toString $s.http_inference) "on") }}
{{- $wrong = append $wrong (printf "settings.http_inference is %v and tls.enabled is true: the HTTP port would speak TLS, and probes and Prometheus ask it in the clear; expected auto or off" $s.http_inference) }}
{{- end }}
{{- if or $v.settings.tls_certificate $v.settings.tls_private_key }}
{{- $wrong = append $wrong (printf "settings.tls_certificate is %q and settings.tls_private_key is %q: tls.enabled sets them, and the Services follow it; expected tls.enabled and tls.secretName instead" ($v.settings.tls_certificate | default "") ($v.settings.tls_private_key | default "")) }}
{{- end }}
{{- if and $v.settings.tls_client_ca (not $v.tls.enabled) }}
{{- $wrong = append $wrong (printf "settings.tls_client_ca is %v and tls.enabled is false: nobody would be asked for a certificate; expected tls.enabled true" $v.settings.tls_client_ca) }}
{{- end }}
{{- if and $v.settings.metrics_without_certificate (not $v.settings.tls_client_ca) }}
{{- $wrong = append $wrong (printf "settings.metrics_without_certificate is %v without settings.tls_client_ca: nobody is asked for a certificate; leave it out" $v.settings.metrics_without_certificate) }}
{{- end }}
{{- if and (not $v.tls.enabled) (or $v.tls.secretName $v.tls.issuer $v.tls.dnsNames) }}
{{- $wrong = append $wrong (printf "tls.enabled is false, and tls has secretName %q, issuer %v and dnsNames %v: calls would be in the clear; expected tls.enabled true, or none of them" $v.tls.secretName (toJson $v.tls.issuer) (toJson $v.tls.dnsNames)) }}
{{- end }}
{{- if and $v.tls.secretName (or $v.tls.issuer $v.tls.dnsNames) }}
{{- $wrong = append $wrong (printf "tls.secretName is %v, a Secret that is there, and tls has issuer %v and dnsNames %v for one that is to be made: leave one of them out" $v.tls.secretName (toJson $v.tls.issuer) (toJson $v.tls.dnsNames)) }}
{{- end }}
{{- if and $v.tokens.enabled $v.settings.access_policy }}
{{- $wrong = append $wrong (printf "settings.access_policy is %v and tokens.enabled sets it: leave one of them out" $v.settings.access_policy) }}
{{- end }}
{{- if and (not $v.tokens.enabled) (or $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy)) }}
{{- $wrong = append $wrong (printf "tokens.enabled is false, and tokens has secretName %q and a policy %q: everybody could make every call; expected tokens.enabled true, or neither of them" $v.tokens.secretName $v.tokens.policy) }}
{{- end }}
{{- if and $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy) }}
{{- $wrong = append $wrong (printf "tokens.secretName is %v, a Secret that is there, and tokens.policy is one for a Secret that is to be made: leave one of them out" $v.tokens.secretName) }}
{{- end }}
{{- if and (not $v.networkPolicy.enabled) (or $v.networkPolicy.clients $v.networkPolicy.egress) }}
{{- $wrong = append $wrong (printf "networkPolicy.enabled is false, and networkPolicy has clients %v and egress %v: everybody would reach the servers; expected networkPolicy.enabled true, or neither of them" (toJson $v.networkPolicy.clients) (toJson $v.networkPolicy.egress)) }}
{{- end }}
{{- if and (not $v.monitoring.enabled) $v.monitoring.labels }}
{{- $wrong = append $wrong (printf "monitoring.enabled is false, and monitoring.labels is %v: nothing would be watched; expected monitoring.enabled true, or no labels" (toJson $v.monitoring.labels)) }}
{{- end }}
{{- if and $v.monitoring.enabled $v.settings.tls_client_ca (not $v.settings.metrics_without_certificate) }}
{{- $wrong = append $wrong (printf "settings.tls_client_ca is %v and monitoring.enabled is true: Prometheus shows no certificate, and would be refused; expected settings.metrics_without_certificate true too" $v.settings.tls_client_ca) }}
{{- end }}
{{- if and $v.gateway.enabled $v.settings.tls_client_ca }}
{{- $wrong = append $wrong (printf "settings.tls_client_ca is %v and gateway.enabled is true: the gateway shows no certificate, and every call through it would fail; expected tokens.enabled, or no gateway" $v.settings.tls_client_ca) }}
{{- end }}
{{- if and $v.gateway.ofAnotherRelease $v.settings.tls_client_ca }}
{{- $wrong = append $wrong (printf "settings.tls_client_ca is %v and gateway.ofAnotherRelease is true: the gateway shows no certificate, and every call through it would fail; expected tokens.enabled, or no gateway" $v.settings.tls_client_ca) }}
{{- end }}
{{- if and $v.gateway.ofAnotherRelease (or $v.gateway.enabled (not $v.tls.enabled)) }}
{{- $wrong = append $wrong (printf "gateway.ofAnotherRelease is true, gateway.enabled is %v and tls.enabled is %v: it tells another release's gateway that these servers speak TLS; expected tls.enabled true and no gateway of their own, or false" $v.gateway.enabled $v.tls.enabled) }}
{{- end }}
{{- if and (not $v.gateway.enabled) (or $v.gateway.canary.service $v.gateway.canary.weight) }}
{{- $wrong = append $wrong (printf "gateway.canary has service %q and weight %v, and gateway.enabled is false: nothing would shift calls; expected gateway.enabled true" $v.gateway.canary.service $v.gateway.canary.weight) }}
{{- end }}
{{- if and $v.gateway.canary.weight (not $v.gateway.canary.service) }}
{{- $wrong = append $wrong (printf "gateway.canary.weight is %v: it needs gateway.canary.service, the Service of the other release" $v.gateway.canary.weight) }}
{{- end }}
{{- if has $v.gateway.canary.service $f.services }}
{{- $wrong = append $wrong (printf "gateway.canary.service is %v, a Service of this release itself: expected another release's" $v.gateway.canary.service) }}
{{- end }}
{{- if and $v.settings.trace_endpoint $f.heldBack (not $v.networkPolicy.egress) (not $v.models.bucket.egress) }}
{{- $wrong = append $wrong (printf "settings.trace_endpoint is %v, a collector that the network policy holds back: name it and DNS in networkPolicy.egress, or in models.bucket.egress" $v.settings.trace_endpoint) }}
{{- end }}
{{- range $v.env }}
{{- if hasPrefix "INFERRY_" .name }}
{{- $wrong = append $wrong (printf "env has %v: the server's settings are under settings, where times and probes follow them; expected settings.%v" .name (trimPrefix "INFERRY_" .name | lower)) }}
{{- end }}
{{- end }}
{{- range $v.volumeMounts }}
{{- if not (has .name $f.volumes) }}
{{- $wrong = append $wrong (printf "volumeMounts has %v at %v, and there is no such volume: expected one of %v" .name .mountPath (join ", " $f.volumes)) }}
{{- end }}
{{- end }}
{{- if ne (len $f.ownVolumes) (len (uniq $f.ownVolumes)) }}
{{- $wrong = append $wrong (printf "of volumes, the names %v are there twice: expected each once" (join ", " $f.ownVolumes)) }}
{{- end }}
{{- if ne (len $f.ownMounts) (len (uniq $f.ownMounts)) }}
{{- $wrong = append $wrong (printf "of volumeMounts, the paths %v are there twice: expected each once" (join ", " $f.ownMounts)) }}
{{- end }}
{{- if ne (len $f.ownVariables) (len (uniq $f.ownVariables)) }}
{{- $wrong = append $wrong (printf "of env, the variables %v are there twice: expected each once" (join ", " $f.ownVariables)) }}
{{- end }}
{{- if and $v.settings.tls_client_ca (ne (include "inferry.holdsFile" (list $ $v.settings.tls_client_ca)) "yes") }}
{{- $wrong = append $wrong (printf "settings.tls_client_ca is %v, and no file can be there: expected a path below /models, below /tls with tls.enabled, or below one of volumeMounts whose volume is no emptyDir; there are %v" $v.settings.tls_client_ca (join ", " $f.mounts)) }}
{{- end }}
{{- if and $v.settings.model_key (ne (include "inferry.holdsFile" (list $ $v.settings.model_key)) "yes") }}
{{- $wrong = append $wrong (printf "settings.model_key is %v, and no file can be there: expected a path below /models, below /tls with tls.enabled, or below one of volumeMounts whose volume is no emptyDir; there are %v" $v.settings.model_key (join ", " $f.mounts)) }}
{{- end }}
{{- if and $v.settings.access_policy (ne (include "inferry.holdsFile" (list $ $v.settings.access_policy)) "yes") }}
{{- $wrong = append $wrong (printf "settings.access_policy is %v, and no file can be there: expected a path below /models, below /tls with tls.enabled, or below one of volumeMounts whose volume is no emptyDir; there are %v" $v.settings.access_policy (join ", " $f.mounts)) }}
{{- end }}
{{- if lt (float64 $f.startSeconds) (float64 $s.model_load_timeout_s) }}
{{- $wrong = append $wrong (printf "settings.model_load_timeout_s is %v, and a pod has %v seconds to start: set startSeconds to more" $s.model_load_timeout_s $f.startSeconds) }}
{{- end }}
{{- if le (float64 $s.drain_delay_s) (float64 $f.readinessSeconds) }}
{{- $wrong = append $wrong (printf "settings.drain_delay_s is %v: it must be more than %v, which is how long a pod that is not ready may still get calls" $s.drain_delay_s $f.readinessSeconds) }}
{{- end }}
{{- if lt (float64 $s.max_request_rows) (float64 $s.max_batch_size) }}
{{- $wrong = append $wrong (printf "settings.max_request_rows is %v and settings.max_batch_size is %v: expected at least as much" (include "inferry.text" $s.max_request_rows) (include "inferry.text" $s.max_batch_size)) }}
{{- end }}
{{- if lt (float64 $s.max_queue_size) (float64 $s.max_request_rows) }}
{{- $wrong = append $wrong (printf "settings.max_queue_size is %v and settings.max_request_rows is %v: expected at least as much" (include "inferry.text" $s.max_queue_size) (include "inferry.text" $s.max_request_rows)) }}
{{- end }}
{{- if and (gt (float64 $s.max_total_queue_bytes) 0.0) (lt (float64 $s.max_total_queue_bytes) (mulf 2 $s.max_queue_bytes)) }}
{{- $wrong = append $wrong (printf "settings.max_total_queue_bytes is %v and settings.max_queue_bytes is %v: expected 0, or at least twice as much" (include "inferry.text" $s.max_total_queue_bytes) (include "inferry.text" $s.max_queue_bytes)) }}
{{- end }}
{{- if and (ne (toString $s.response_compression) "none") (eq (toString $s.compressed_requests) "false") }}
{{- $wrong = append $wrong (printf "settings.response_compression is %v and settings.compressed_requests is false: gRPC turns both off; leave one of them out" $s.response_compression) }}
{{- end }}
{{- if and (gt (float64 $s.max_queue_delay_us) 0.0) (eq (int $s.max_batch_size) 1) }}
{{- $wrong = append $wrong (printf "settings.max_queue_delay_us is %v and settings.max_batch_size is 1: a batch of one row is full at once; expected no delay, or larger batches" $s.max_queue_delay_us) }}
{{- end }}
{{- if and $v.settings.latency_objective_ms (gt (float64 $s.max_queue_delay_us) 0.0) (ge (float64 $s.max_queue_delay_us) (mulf 1000 (get $s "latency_objective_ms" | default 0))) }}
{{- $wrong = append $wrong (printf "settings.max_queue_delay_us is %v and settings.latency_objective_ms is %v: who waits for the whole delay is late already; expected a delay below the objective" $s.max_queue_delay_us $v.settings.latency_objective_ms) }}
{{- end }}
{{- if and (not $v.settings.trace_endpoint) (ne (float64 $s.trace_sample_ratio) (float64 $d.trace_sample_ratio)) }}
{{- $wrong = append $wrong (printf "settings.trace_sample_ratio is %v without settings.trace_endpoint: expected where traces go, or no ratio" $s.trace_sample_ratio) }}
{{- end }}
{{- if and (eq (toString $s.provider) "cpu") $f.changedForGpus }}
{{- $wrong = append $wrong (printf "settings.provider is cpu, and %v have no effect then: leave them out, or choose another provider" (join ", " $f.changedForGpus)) }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "these values cannot be together:\n- %s" (join "\n- " ($wrong | uniq))) }}
{{- end }}
{{- end }}
