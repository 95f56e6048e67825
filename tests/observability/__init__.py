"""Makes deploy/observability: a dashboard, and the rules of Prometheus, from lists in Python."""
