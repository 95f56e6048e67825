"""Clients of an Inferry server: SDK, command line, batch jobs, load tests."""
