"""Measurements: against other libraries, over long sequences, of instruments, of populations, and of a start."""
