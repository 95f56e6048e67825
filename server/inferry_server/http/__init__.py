"""One HTTP port beside gRPC: health, metrics, and the REST half of the Open Inference Protocol.

An HTTP request becomes the message that gRPC would carry and goes to the same handler (`rpc/router.py`), so
decoding, queues, limits, deadlines and errors are the same. A thread of its own with an event loop serves the
port; models compute elsewhere.
"""
