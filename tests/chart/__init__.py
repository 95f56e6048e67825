"""The Helm chart: made from what kustomize renders of the base and its components."""
