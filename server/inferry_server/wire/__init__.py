"""The bytes of a ModelInfer: cut up, checked, read as arrays, and written back."""
