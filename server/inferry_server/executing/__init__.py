"""The threads that turn queued requests into batches, and outputs into replies; and the watchdog's."""
