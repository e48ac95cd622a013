"""Data: files, arrays larger than memory, batches."""
