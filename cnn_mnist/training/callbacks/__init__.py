"""Callbacks: when to look at the network during training, and where to log."""
