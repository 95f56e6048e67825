"""`make rehearsal`: real servers behind a real Envoy, under verified traffic, with the manifests' own numbers."""
