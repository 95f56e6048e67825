"""Channels to servers: addresses, TLS and tokens, health."""
