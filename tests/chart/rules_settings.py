"""Rules of the server's settings: beside the pod's times, and beside one another as the server itself has them."""

from chart.rule import COLLECTOR, Rule
from inferry_server.settings.settings import AT_LEAST

TIME_RULES = (
    Rule(
        "lt (float64 $f.startSeconds) (float64 $s.model_load_timeout_s)",
        "settings.model_load_timeout_s is %v, and a pod has %v seconds to start: set startSeconds to more",
        ("$s.model_load_timeout_s", "$f.startSeconds"),
        {"settings.model_load_timeout_s": 3600},
        {"settings.model_load_timeout_s": 3600, "startSeconds": 3600},
    ),
    Rule(
        "le (float64 $s.drain_delay_s) (float64 $f.readinessSeconds)",
        "settings.drain_delay_s is %v: it must be more than %v, which is how long a pod that is not ready may still "
        "get calls",
        ("$s.drain_delay_s", "$f.readinessSeconds"),
        {"settings.drain_delay_s": 6},
        {"settings.drain_delay_s": 6.5},
    ),
)

SETTING_RULES = (  # as `Settings` refuses them; a test compares the two
    *(
        Rule(
            f"lt (float64 $s.{name}) (float64 $s.{other})",
            f"settings.{name} is %v and settings.{other} is %v: expected at least as much",
            (f'include "inferry.text" $s.{name}', f'include "inferry.text" $s.{other}'),
            {f"settings.{name}": 1, f"settings.{other}": 2},
            {f"settings.{name}": 512, f"settings.{other}": 256},
        )
        for name, other in AT_LEAST
    ),
    Rule(
        "and (gt (float64 $s.max_total_queue_bytes) 0.0) "
        "(lt (float64 $s.max_total_queue_bytes) (mulf 2 $s.max_queue_bytes))",
        "settings.max_total_queue_bytes is %v and settings.max_queue_bytes is %v: expected 0, or at least twice as "
        "much",
        ('include "inferry.text" $s.max_total_queue_bytes', 'include "inferry.text" $s.max_queue_bytes'),
        {"settings.max_total_queue_bytes": 1 << 28},
        {"settings.max_total_queue_bytes": 1 << 29},
    ),
    Rule(
        'and (ne (toString $s.response_compression) "none") (eq (toString $s.compressed_requests) "false")',
        "settings.response_compression is %v and settings.compressed_requests is false: gRPC turns both off; leave "
        "one of them out",
        ("$s.response_compression",),
        {"settings.response_compression": "gzip", "settings.compressed_requests": False},
        {"settings.response_compression": "gzip"},
    ),
    Rule(
        "and (gt (float64 $s.max_queue_delay_us) 0.0) (eq (int $s.max_batch_size) 1)",
        "settings.max_queue_delay_us is %v and settings.max_batch_size is 1: a batch of one row is full at once; "
        "expected no delay, or larger batches",
        ("$s.max_queue_delay_us",),
        {"settings.max_queue_delay_us": 500, "settings.max_batch_size": 1},
        {"settings.max_queue_delay_us": 500, "settings.max_batch_size": 2},
    ),
    Rule(
        "and $v.settings.latency_objective_ms (gt (float64 $s.max_queue_delay_us) 0.0) "
        '(ge (float64 $s.max_queue_delay_us) (mulf 1000 (get $s "latency_objective_ms" | default 0)))',
        "settings.max_queue_delay_us is %v and settings.latency_objective_ms is %v: who waits for the whole delay is "
        "late already; expected a delay below the objective",
        ("$s.max_queue_delay_us", "$v.settings.latency_objective_ms"),
        {"settings.max_queue_delay_us": 2000, "settings.latency_objective_ms": 2},
        {"settings.max_queue_delay_us": 1999, "settings.latency_objective_ms": 2},
    ),
    Rule(
        "and (not $v.settings.trace_endpoint) (ne (float64 $s.trace_sample_ratio) (float64 $d.trace_sample_ratio))",
        "settings.trace_sample_ratio is %v without settings.trace_endpoint: expected where traces go, or no ratio",
        ("$s.trace_sample_ratio",),
        {"settings.trace_sample_ratio": 0.5},
        {"settings.trace_sample_ratio": 0.5, "settings.trace_endpoint": COLLECTOR},
    ),
    Rule(
        'and (eq (toString $s.provider) "cpu") $f.changedForGpus',
        "settings.provider is cpu, and %v have no effect then: leave them out, or choose another provider",
        ('join ", " $f.changedForGpus',),
        {"settings.provider": "cpu", "settings.tf32": True},
        {"settings.provider": "cpu"},
    ),
)  # fmt: skip
