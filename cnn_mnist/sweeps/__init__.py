"""Many runs: jobs, their progress, their statistics, and a search."""
