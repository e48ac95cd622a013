"""Runs in their directories: the loop, checkpoints, records, early stopping, and runs that are on disk."""
