"""Pictures and results that lie in object stores and on web servers (extra `batch-stores`)."""
