"""gRPC servers: bytes of a connection in, calls out."""
