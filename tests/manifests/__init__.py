"""What the manifests must keep: rendering, schemas, and rules across objects and against a running server."""
