"""Requests become batches: the queue, the policy, and the thread that runs the model."""
