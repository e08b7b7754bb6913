"""What a training run leaves on disk: its folder, checkpoints, curves and record."""
