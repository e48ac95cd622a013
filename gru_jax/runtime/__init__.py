"""Processes, devices, signals, locks and files."""
