"""The contracts: RPC messages, the model manifest, and what a picture becomes."""
