"""Initialisation schemes: which distribution each kernel and bias of each gate is drawn from, by name.

A kernel initialiser is one function `(key, shape, dtype) -> array` under its name in `KERNELS`; a bias initialiser
is one in `BIASES`; a rule for the biases that set a cell's memory is one in `GATE_BIASES`. Adding one is adding one
function. Kernels and biases may also be drawn by a function of a user's own, in place of a name, with values for
arguments of its own where it has some (`gru_jax.with_arguments`).

Every array is drawn from a key of its own, folded from the layer's key and the array's name, so that changing how
one gate is initialised leaves all other arrays of the layer as they were: an ablation varies one thing.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers as jinit
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.settings import check_value, check_values, setting
from gru_jax.user_code import Name, look_up
from gru_jax.values import Text

Initializer = Callable[[PRNGKeyArray, tuple[int, ...], DTypeLike], Array]
Number = float | int | Array  # a Python number or a traced scalar: schemes may be swept inside one compiled program


def identity(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """The identity matrix (ones on the main diagonal of a rectangular one). IRNN, Le et al. 2015, arXiv:1504.00941."""
    del key
    return jnp.eye(*shape, dtype=dtype)


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw from U(-1/sqrt(H), 1/sqrt(H)) with H = `shape[-1]` hidden units, as in PyTorch's recurrent layers."""
    bound = 1.0 / shape[-1] ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def fan_in_normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw from N(0, 1/fan_in), not truncated: the matrix of random-matrix theory, eigenvalues in the unit disc."""
    return jax.random.normal(key, shape, dtype) * (1.0 / shape[0] ** 0.5)


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw from N(0, 1); the scheme's scale is the standard deviation."""
    return jax.random.normal(key, shape, dtype)


def zeros(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """All zeros."""
    del key
    return jnp.zeros(shape, dtype)


def ones(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """All ones; a bias's value is its scale."""
    del key
    return jnp.ones(shape, dtype)


KERNELS: dict[str, Initializer] = {
    "glorot_uniform": jinit.glorot_uniform(),
    "glorot_normal": jinit.glorot_normal(),
    "xavier_uniform": jinit.glorot_uniform(),
    "xavier_normal": jinit.glorot_normal(),
    "lecun_uniform": jinit.lecun_uniform(),
    "lecun_normal": jinit.lecun_normal(),
    "he_uniform": jinit.he_uniform(),
    "he_normal": jinit.he_normal(),
    "orthogonal": jinit.orthogonal(),
    "identity": identity,
    "uniform": uniform,
    "fan_in_normal": fan_in_normal,
    "normal": normal,
    "zeros": zeros,
}
"""Kernel initialisers by name, for `[D, H]` input and `[H, H]` recurrent kernels; Xavier is another name for Glorot."""

BIASES: dict[str, Initializer] = {"zeros": zeros, "constant": ones, "uniform": uniform, "normal": normal}
"""Bias initialisers by name; each is multiplied by `Scheme.bias_scale`."""


def constant_gate(scheme: Scheme, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Set every unit to `scheme.gate_value`, e.g. 1 for an LSTM's forget gate (Jozefowicz et al. 2015)."""
    del key
    return jnp.ones(shape, dtype) * scheme.gate_value


def chrono(scheme: Scheme, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw logits whose forgetting times are uniform in [t_min, t_max] steps.

    b = log U(t_min - 1, t_max - 1), so that 1 + e^b is uniform. Tallec and Ollivier 2018, arXiv:1804.11188, eq. 16,
    where t_min = 2.
    """
    scheme.check_time_scales()
    assert scheme.t_max is not None
    u = jax.random.uniform(key, shape, dtype)
    return jnp.log((scheme.t_min - 1.0) + (1.0 - u) * (scheme.t_max - scheme.t_min))  # 1 - u is never 0


def uniform_gate(scheme: Scheme, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw logits of a gate that is uniform itself, logit U(1/H, 1 - 1/H). Gu et al. 2020, arXiv:1910.09890, 3.1."""
    del scheme
    edge = min(1.0 / shape[-1], 0.5)
    u = jax.random.uniform(key, shape, dtype, minval=edge, maxval=max(1.0 - edge, edge))
    return jnp.log(u) - jnp.log1p(-u)


GATE_BIASES: dict[str, Callable[[Scheme, PRNGKeyArray, tuple[int, ...], DTypeLike], Array]] = {
    "constant": constant_gate,
    "chrono": chrono,
    "uniform_gate": uniform_gate,
}
"""How the *retention* logit of a cell is set; the cell says which gate that is and with which sign (`Cell.memory`)."""

MEMORY_SETTINGS = ("gate_bias", "gate_value", "t_min", "t_max")
"""Settings of a `Scheme` that only the gate that holds a cell's memory reads."""

INHERIT = "same"
GATE_BIAS_NAMES = (INHERIT, "zeros", *GATE_BIASES)
TIED_GATE_BIASES = ("chrono", "uniform_gate")  # these also set a separate write gate, to the opposite value


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a cell's parameters are drawn. Names are checked here; numbers may be traced values.

    Attributes:
        input: initialiser of the input kernels `W [D, H]`, one of `KERNELS`.
        input_scale: factor on the input kernels (the standard deviation for `"normal"`).
        recurrent: initialiser of the recurrent kernels `U [H, H]`, one of `KERNELS`, drawn for each gate by itself:
            an orthogonal kernel is orthogonal in every gate.
        recurrent_scale: factor on the recurrent kernels.
        bias: initialiser of all biases, one of `BIASES`.
        bias_scale: factor on the biases: the value for `"constant"`, the standard deviation for `"normal"`.
        gate_bias: the biases that set how long the cell remembers: `"same"` as the others, `"zeros"`, or one of
            `GATE_BIASES`. Signs follow the cell's convention: a larger value always means a longer memory.
        gate_value: the logit of the fraction that is retained, for `gate_bias="constant"`.
        t_min: shortest time scale, in steps, for `gate_bias="chrono"`.
        t_max: longest time scale, in steps, for `gate_bias="chrono"`; None, in a config, for the task's length.
        gates: overrides of any of the above for single gates, by their names: `{"n": {"recurrent": "identity"}}`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> scheme = gru_jax.Scheme(recurrent="identity", gate_bias="chrono", t_max=100.0)
        >>> params = gru_jax.cells.GRU().init(jax.random.key(0), 2, 3, scheme)
        >>> bool((params["U"]["n"] == jnp.eye(3)).all())
        True
        >>> bool((params["b"]["z"] > 0).all())
        True
    """

    input: Name = setting("glorot_uniform", choices=tuple(KERNELS), is_open=True, filled=3)
    input_scale: Number = 1.0
    recurrent: Name = setting("orthogonal", choices=tuple(KERNELS), is_open=True, filled=3)
    recurrent_scale: Number = 1.0
    bias: Name = setting("zeros", choices=tuple(BIASES), is_open=True, filled=3)
    bias_scale: Number = 1.0
    gate_bias: str = setting(INHERIT, choices=GATE_BIAS_NAMES)
    gate_value: Number = 1.0
    t_min: Number = setting(2.0, low=1)
    t_max: Number | None = setting(None, low=1)
    gates: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values(self)
        fields = {field.name: field for field in dataclasses.fields(self) if field.name != "gates"}
        for gate, changes in self.gates.items():
            if not isinstance(changes, Mapping):
                raise UsageError(f"gates.{gate}={changes!r}: a section is needed here, with keys {listing(fields)}")
            for name, value in changes.items():
                check_choice(f"gates.{gate}", name, fields)
                if not isinstance(value, Mapping | Text):  # those the config reads before it uses them
                    check_value(Scheme, fields[name], value, f"gates.{gate}.")

    def check_time_scales(self, prefix: str = "") -> None:
        """Raise `UsageError` unless the range of time scales is one, as far as its ends are known and asked for."""
        low, high = self.t_min, self.t_max
        if self.gate_bias != "chrono":
            return
        if high is None:
            raise UsageError(f"{prefix}t_max=None: gate_bias='chrono' needs t_max, the longest dependency in steps")
        if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
            raise UsageError(f"{prefix}t_min={low}: allowed are 1 to below t_max={high}")

    def gate(self, name: str) -> Scheme:
        """The scheme as it holds for one gate."""
        return dataclasses.replace(self, gates={}, **self.gates.get(name, {}))

    def input_kernel(
        self, key: PRNGKeyArray, gate: str, shape: tuple[int, int], dtype: DTypeLike
    ) -> Float[Array, "D H"]:
        """Draw `W` of a gate."""
        scheme = self.gate(gate)
        return _draw(look_up(KERNELS, scheme.input), _named(key, f"W/{gate}"), shape, dtype, scheme.input_scale)

    def recurrent_kernel(
        self, key: PRNGKeyArray, gate: str, shape: tuple[int, int], dtype: DTypeLike
    ) -> Float[Array, "H H"]:
        """Draw `U` of a gate."""
        scheme = self.gate(gate)
        return _draw(look_up(KERNELS, scheme.recurrent), _named(key, f"U/{gate}"), shape, dtype, scheme.recurrent_scale)

    def bias_vector(self, key: PRNGKeyArray, group: str, gate: str, size: int, dtype: DTypeLike) -> Float[Array, " H"]:
        """Draw the bias of a gate in group `"b"` (input side) or `"c"` (recurrent side)."""
        scheme = self.gate(gate)
        return _draw(look_up(BIASES, scheme.bias), _named(key, f"{group}/{gate}"), (size,), dtype, scheme.bias_scale)

    def retention_logit(self, key: PRNGKeyArray, gate: str, size: int, dtype: DTypeLike) -> Float[Array, " H"]:
        """Draw the logit of the retained fraction of the state, where a rule sets it, see `rules_memory`."""
        scheme = self.gate(gate)
        if scheme.gate_bias == "zeros":
            return jnp.zeros(size, dtype)
        return GATE_BIASES[scheme.gate_bias](scheme, _named(key, "memory"), (size,), carry_dtype(dtype)).astype(dtype)

    def rules_memory(self, gate: str) -> bool:
        """Whether `gate_bias` sets the bias of gate `gate`, which holds the memory, or leaves it as the others are."""
        return self.gate(gate).gate_bias != INHERIT

    def ties_write_gate(self, gate: str) -> bool:
        """Whether the rule for gate `gate` also sets the cell's separate write gate, to minus the retention logit."""
        return self.gate(gate).gate_bias in TIED_GATE_BIASES

    def ties_refine_gate(self, gate: str) -> bool:
        """Whether the rule for gate `gate` also sets the gate that refines it, to minus the retention logit."""
        return self.gate(gate).gate_bias == "uniform_gate"


def _named(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """The key of the array of this name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def _draw(init: Initializer, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike, scale: Number) -> Array:
    # QR has no half precision, and a narrow type should round the values, not change them.
    wide = carry_dtype(dtype)
    return (init(key, shape, wide) * jnp.asarray(scale, wide)).astype(dtype)
