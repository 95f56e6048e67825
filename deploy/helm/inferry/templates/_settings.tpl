{{- /* made by `make chart` from deploy/k8s */}}
{{- define "inferry.manifestSettings" -}}
INFERRY_DRAIN_DELAY_S: "10"
INFERRY_DRAIN_TIMEOUT_S: "30"
INFERRY_GRPC_ADDRESS: "0.0.0.0:8001"
INFERRY_HTTP_ADDRESS: "0.0.0.0:8002"
INFERRY_LOG_FORMAT: json
INFERRY_MAX_CONNECTION_AGE_S: "120"
INFERRY_REPOSITORY: /models
{{- if $.Values.gpu.enabled }}
INFERRY_SELF_CHECK_INTERVAL_S: "60"
{{- end }}
{{- if $.Values.tls.enabled }}
INFERRY_HTTP_INFERENCE: "off"
{{- end }}
{{- if $.Values.tls.enabled }}
INFERRY_TLS_CERTIFICATE: /tls/tls.crt
{{- end }}
{{- if $.Values.tls.enabled }}
INFERRY_TLS_PRIVATE_KEY: /tls/tls.key
{{- end }}
{{- if $.Values.tokens.enabled }}
INFERRY_ACCESS_POLICY: /access/policy.toml
{{- end }}
{{- if eq $.Values.models.from "bucket" }}
INFERRY_MODEL_CONTROL: poll
{{- end }}
{{- end }}
