"""Batch jobs on a Ray cluster (extra `ray`)."""
