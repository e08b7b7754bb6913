"""When to look at the network while it trains, and where the picture goes; nothing else."""
