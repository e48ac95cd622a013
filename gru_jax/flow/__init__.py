"""Gradient-flow instruments: pure functions of a cell, its parameters and a trajectory."""

from gru_jax.flow import theory
from gru_jax.flow.adjoint import (
    LagProfile,
    adjoint_norms,
    by_lag,
    explosion,
    horizon,
    lag_profile,
    log_slope,
)
from gru_jax.flow.fixed_points import (
    FixedPoints,
    find_fixed_points,
    saddle_ends,
    sample_states,
)
from gru_jax.flow.gates import gate_histograms, gate_values, saturation, time_scales
from gru_jax.flow.jacobian import (
    Jacobians,
    Stretched,
    dense_jacobians,
    jacobians,
    pull,
    push,
    singular_values,
    spectral_radius,
)
from gru_jax.flow.lyapunov import (
    Spectrum,
    finite_time_spread,
    largest_exponent,
    log_condition,
    lyapunov_spectrum,
    product_spectrum,
)
from gru_jax.flow.parameters import ParameterProfile, parameter_profile
from gru_jax.flow.regularizers import flossing_penalty, vanishing_penalty
from gru_jax.flow.signal import StateProfile, signal_to_noise, state_profile, update_ratios
from gru_jax.flow.sources import from_single_steps, source_profile
from gru_jax.flow.speed import Minimised, minimise_speed
from gru_jax.flow.trajectory import Trajectory, to_carry, to_vector

__all__ = [
    "FixedPoints",
    "Jacobians",
    "LagProfile",
    "Minimised",
    "ParameterProfile",
    "Spectrum",
    "StateProfile",
    "Stretched",
    "Trajectory",
    "adjoint_norms",
    "by_lag",
    "dense_jacobians",
    "explosion",
    "find_fixed_points",
    "finite_time_spread",
    "flossing_penalty",
    "from_single_steps",
    "gate_histograms",
    "gate_values",
    "horizon",
    "jacobians",
    "lag_profile",
    "largest_exponent",
    "log_condition",
    "log_slope",
    "lyapunov_spectrum",
    "minimise_speed",
    "parameter_profile",
    "product_spectrum",
    "pull",
    "push",
    "saddle_ends",
    "sample_states",
    "saturation",
    "signal_to_noise",
    "singular_values",
    "source_profile",
    "spectral_radius",
    "state_profile",
    "theory",
    "time_scales",
    "to_carry",
    "to_vector",
    "update_ratios",
    "vanishing_penalty",
]
