"""Studies: many members from a base config and axes, how they are run, and what is reported of them."""
