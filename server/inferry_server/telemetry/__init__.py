"""What is seen of the server: metrics, statistics, traces, logs."""
