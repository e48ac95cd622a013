"""Gradient-flow instruments: pure functions of a cell, its parameters and a trajectory."""

from gru_jax.flow.adjoint import LagProfile, adjoint_norms, by_lag, horizon, lag_profile
from gru_jax.flow.gates import gate_histograms, gate_values

__all__ = ["LagProfile", "adjoint_norms", "by_lag", "gate_histograms", "gate_values", "horizon", "lag_profile"]
