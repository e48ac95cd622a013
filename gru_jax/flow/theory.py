"""Closed forms that measurements can be held against.

All exponents are in nats per step. `digamma` is the derivative of ln Gamma.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.nn import sigmoid
from jax.scipy.special import digamma
from jaxtyping import Array, Float

Scalar = float | Float[Array, "..."]


def edge_of_stability(reset_bias: Scalar) -> Scalar:
    """The scale g of a Gaussian recurrent candidate kernel at which the state h = 0 turns unstable.

    The kernel's standard deviation is g / sqrt(H). For a GRU without input and candidate bias, `reset="after"`: g = 1 /
    sigmoid(b_r), whatever the update gate's bias, as its Jacobian there is sigmoid(b_z) I + (1 - sigmoid(b_z))
    sigmoid(b_r) U_n and the eigenvalues of U_n fill a disc of radius g. Can et al. 2020, arXiv:2002.00025.

    Examples:
        >>> from gru_jax.flow import theory
        >>> round(float(theory.edge_of_stability(0.0)), 3)
        2.0
    """
    return 1.0 / sigmoid(jnp.asarray(reset_bias))


def autonomous_exponents(eigenvalues: Array, update_bias: Scalar = 0.0, reset_bias: Scalar = 0.0) -> Float[Array, " H"]:
    """The Lyapunov exponents of a GRU that rests at h = 0 without input, largest first.

    lambda_i = ln |sigmoid(b_z) + (1 - sigmoid(b_z)) sigmoid(b_r) mu_i|, with mu the eigenvalues of the recurrent
    candidate kernel, `reset="after"`, `update="keep"`, equal biases for all units and no candidate bias.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax.flow import theory
        >>> exponents = theory.autonomous_exponents(jnp.array([0.0, 4.0]))
        >>> [round(exponent, 3) for exponent in exponents.tolist()]  # ln 1.5 and ln 0.5
        [0.405, -0.693]
    """
    z, r = sigmoid(jnp.asarray(update_bias)), sigmoid(jnp.asarray(reset_bias))
    return jnp.sort(jnp.log(jnp.abs(z + (1.0 - z) * r * eigenvalues)))[::-1]


def gaussian_product_exponents(size: int, scale: Scalar = 1.0) -> Float[Array, " N"]:
    """The Lyapunov exponents of products of fresh Gaussian N x N matrices, largest first.

    Of entries N(0, scale^2 / N): lambda_i = (ln(2 / N) + digamma((N - i + 1) / 2)) / 2 + ln scale. Newman 1986,
    Communications in Mathematical Physics 103.

    Examples:
        >>> from gru_jax.flow import theory
        >>> exponents = theory.gaussian_product_exponents(2)
        >>> [round(exponent, 3) for exponent in exponents.tolist()]  # -c / 2 and -c / 2 - ln 2, c Euler's constant
        [-0.289, -0.982]
    """
    i = jnp.arange(1, size + 1)
    half = (size - i + 1).astype(jnp.result_type(float)) / 2.0
    return 0.5 * (jnp.log(2.0 / size) + digamma(half)) + jnp.log(jnp.asarray(scale, half.dtype))


def linear_unit(decay: Scalar) -> tuple[Scalar, Scalar]:
    """How large the state of a linear unit and its gradient get: E[h^2] and E[(dh/d decay)^2], in the long run.

    Of h' = decay h + x with white x of variance 1: 1 / (1 - decay^2) and (1 + decay^2) / (1 - decay^2)^3: the gradient
    grows faster than the state as the memory gets longer. Zucchet and Orvieto 2024, arXiv:2405.21064.

    Examples:
        >>> from gru_jax.flow import theory
        >>> [round(value, 4) for value in theory.linear_unit(0.5)]
        [1.3333, 2.963]
    """
    left = 1.0 - decay**2
    return 1.0 / left, (1.0 + decay**2) / left**3


def retention_time(logit: Scalar) -> Scalar:
    """The steps in which a unit whose memory gate rests at sigmoid(logit) decays to 1/e: -1 / ln sigmoid(logit).

    For long times this is e^logit + 1/2; chrono initialisation makes 1 + e^logit uniform, Tallec and Ollivier 2018,
    arXiv:1804.11188.

    Examples:
        >>> from gru_jax.flow import theory
        >>> round(float(theory.retention_time(0.0)), 4)  # 1 / ln 2
        1.4427
    """
    return 1.0 / jnp.logaddexp(0.0, -jnp.asarray(logit))


def chrono_time_scales(time: Scalar, t_min: Scalar, t_max: Scalar) -> Scalar:
    """The fraction of the units whose time scale is at most `time` steps after chrono initialisation, without input.

    The rule draws e^b uniform in [t_min - 1, t_max - 1], and -1 / ln sigmoid(b) <= time means
    e^b <= 1 / (e^(1 / time) - 1). Tallec and Ollivier 2018, arXiv:1804.11188, eq. 16.

    Examples:
        >>> from gru_jax.flow import theory
        >>> float(theory.chrono_time_scales(1000.0, 2.0, 100.0))  # all of them
        1.0
    """
    reached = 1.0 / jnp.expm1(1.0 / jnp.asarray(time))
    return jnp.clip((reached - (t_min - 1.0)) / (t_max - t_min), 0.0, 1.0)
