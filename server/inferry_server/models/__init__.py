"""The model repository: what is in it, what loads, what is served."""
