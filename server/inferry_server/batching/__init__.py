"""Decisions about requests and batches: admission, order, deadlines, sizes, turns; without threads and clocks."""
