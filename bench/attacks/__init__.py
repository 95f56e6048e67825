"""Attacks on Inferry and Triton, one after another, each on a server of its own."""
