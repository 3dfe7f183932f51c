"""The words every stage knows, and nothing else."""
