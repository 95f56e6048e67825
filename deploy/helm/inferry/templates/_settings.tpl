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

{{- define "inferry.manifestFacts" -}}
policy: "anonymous = []"
atRestBytes: 157286400
readinessSeconds: 6
{{- if $.Values.gpu.enabled }}
memory: "8Gi"
{{- else }}
memory: "2Gi"
{{- end }}
{{- if $.Values.gpu.enabled }}
startSeconds: 1800
{{- else }}
startSeconds: 900
{{- end }}
{{- end }}

{{- define "inferry.serverDefaults" -}}
http_inference: auto
http_max_connections: 256
http_max_connections_per_peer: 0
http_max_header_bytes: 65536
http_read_timeout_s: 10.0
http_write_timeout_s: 30.0
model_control: none
poll_interval_s: 5.0
model_load_timeout_s: 120.0
provider: auto
gpu_mem_limit_bytes: 0
cudnn_conv_algo_search: heuristic
tf32: false
cuda_graphs: true
prefer_nhwc: auto
self_check_interval_s: 0.0
hang_after_s: 30.0
max_run_s: 600.0
intra_op_num_threads: 0
instance_count: 1
max_batch_size: 32
max_request_rows: 256
max_queue_size: 1024
max_queue_bytes: 268435456
max_total_queue_bytes: 0
max_reply_bytes: 1073741824
max_variant_loss_points: 0.1
memory_bound: true
max_queue_delay_us: 0
inline_batch_ms: 50.0
parallel_runs: true
max_message_bytes: 67108864
max_message_fields: 65536
max_metadata_bytes: 16384
compressed_requests: true
transport: completion_queue
front_ends: "0"
max_connections: 10000
max_connections_per_peer: 0
max_streams_per_connection: 1024
max_open_calls: 32768
stream_idle_timeout_s: 3600.0
max_connection_idle_s: 300.0
request_read_timeout_s: 120.0
reply_read_timeout_s: 600.0
keepalive_time_s: 7200.0
response_compression: none
metrics_without_certificate: false
decode_threads: 0
decode_timeout_s: 10.0
max_image_pixels: 67108864
max_image_scans: 100
drain_delay_s: 0.0
drain_timeout_s: 30.0
report_load: false
system_shared_memory: false
remote_logging_control: false
log_format: text
log_level: info
trace_sample_ratio: 0.01
late_requests: 32
strict: false
verbose: false
{{- end }}
