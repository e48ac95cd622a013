"""From a trained network to one in service: programs that need JAX alone, small weights, fewer units, NumPy alone."""
