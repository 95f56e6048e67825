"""The RPCs, written once against `Call` for every transport."""
