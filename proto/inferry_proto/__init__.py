"""The contracts: RPC messages, the model manifest, and what a picture becomes; with what all three packages need."""
