"""One file for each question asked of a network."""
