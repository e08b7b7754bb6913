"""Data sets: where images come from, and how they reach the network."""
