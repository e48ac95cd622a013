"""Classes and functions of a user's own, in a file that the package does not know."""
