"""Settings: what there is, where it comes from, how it is written."""
