"""The command line: `python -m experiments.train` and its companions."""
