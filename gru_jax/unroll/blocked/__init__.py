"""The unroll in blocks of time."""
