"""Threads that turn queued requests into batches, and outputs into replies."""
