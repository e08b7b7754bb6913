"""Explain a network: pure functions, tensors in, named tuples out."""
