"""The network taken apart: pure functions, tensors in, named tuples out."""
