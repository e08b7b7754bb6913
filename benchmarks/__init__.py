"""Speed beside the peers and beside busy processes, and the results of many runs."""
