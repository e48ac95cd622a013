"""Runs in their directories."""
