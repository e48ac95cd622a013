"""What a cell is: affine maps joined by pointwise functions, written once.

A cell states the gates that read the input, the gates that read the state, and one function `equations` that joins
their products. It never multiplies by a matrix itself: it is handed `dense`, and whoever calls decides what that
does. `step` hands it a product; a backward pass or an instrument may hand it something else.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gru_jax.cells.products import per_unit, product
from gru_jax.dtypes import carry_dtype, chosen_or_default
from gru_jax.errors import UsageError, at_least_one, check_choice, in_one_line, listing
from gru_jax.initializers import MEMORY_SETTINGS, Scheme
from gru_jax.settings import check_values

VECTORS_STREAM = 2**16
"""What the keys of a cell's own vectors are folded from, beside those of its kernels and biases."""
Params = Mapping[str, Any]
Carry = Any  # `h [..., H]`, or a tuple of such arrays whose first is h
Gates = dict[str, Array]
Dense = Callable[[str, Array], Array]


class Memory(NamedTuple):
    """Which gate holds a cell's memory: it keeps the fraction sigmoid(sign * logit) of its state at each step.

    `write` names the gate that scales what is written, where the cell has a separate one, and `refine` the one that
    moves this gate, where there is one. `kept` names the value that is the kept fraction, if not the gate's own.

    Examples:
        >>> import gru_jax
        >>> gru_jax.cells.GRU().memory.gate, gru_jax.cells.GRU(update="write").memory.sign
        ('z', -1)
    """

    gate: str
    sign: int
    write: str | None = None
    refine: str | None = None
    kept: str | None = None


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
    # x + 1/2 above zero, a sigmoid below: positive, continuous, for products in log space (Feng et al. 2024, listing 6)
    "positive": lambda x: jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x)),
}


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """A recurrent cell: frozen, hashable, without parameters of its own.

    Parameters are `{"W": {gate: [D, H]}, "b": {gate: [H]}, "U": {gate: [H, H]}, "c": {gate: [H]}}`: with x the input
    and q a state-like vector, gate g sees u_g = x W_g + b_g and dense(g, q) = q U_g + c_g. A bias `c` exists only where
    it is not the same thing as `b`; groups without a gate are left out. Vectors of a cell's own are `"v": {name: [H]}`.

    Products run in the type of `x`; everything pointwise and the carry run in float32, or float64 if `x` is float64.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.Elman()  # one of its subclasses
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> cell.step(params, cell.initial_carry((4,), 3), jnp.ones((4, 2))).shape
        (4, 3)
        >>> cell.groups
        {'W': ('n',), 'b': ('n',), 'U': ('n',), 'c': (), 'v': ()}
    """

    carry_parts: ClassVar[int] = 1
    """Arrays that a carry consists of; with more than one it is a tuple of them, the hidden state h first."""
    affine: ClassVar[bool] = True
    """Whether `input_products` and `dense` are the affine maps of this class, which block-wise methods count on."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):  # programs are kept by the fields of a cell: what is no field would be confused
            raise UsageError(
                f"{cls.__name__}: defines __init__; a cell is a class under @dataclasses.dataclass(frozen=True), whose "
                "fields are its settings"
            )

    def __post_init__(self) -> None:
        check_values(self)

    @property
    @abc.abstractmethod
    def input_gates(self) -> tuple[str, ...]:
        """Gates with an input kernel `W` and a bias `b`."""

    @property
    @abc.abstractmethod
    def recurrent_gates(self) -> tuple[str, ...]:
        """Gates with a recurrent kernel `U`."""

    @property
    def recurrent_biases(self) -> tuple[str, ...]:
        """Gates whose recurrent product has a bias `c` of its own."""
        return ()

    @property
    def vectors(self) -> tuple[str, ...]:
        """Learnable vectors of its own, a number for each unit, that equations read as `u[name]`: `[..., H]`."""
        return ()

    def initial_vector(self, name: str, key: PRNGKeyArray, hidden_size: int) -> Float[Array, " H"]:
        """What a vector starts from; zeros, unless a cell says otherwise."""
        del name, key
        return jnp.zeros(hidden_size)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The gates, or vectors, of each group of parameters."""
        return {
            "W": self.input_gates, "b": self.input_gates, "U": self.recurrent_gates, "c": self.recurrent_biases,
            "v": self.vectors,
        }  # fmt: skip

    @property
    def memory(self) -> Memory | None:
        """The gate that sets how long the cell remembers, or None where there is none."""
        return None

    @abc.abstractmethod
    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        """Compute one step of the cell from its products; this is what defines a cell.

        Args:
            dense: `dense(gate, q)` is the recurrent product of `q [..., H]`, with its bias.
            carry: the state before this step.
            u: input products of every input gate, and every vector, `[..., H]`.

        Returns:
            The next carry, and every gate's value by name, `[..., H]`.
        """

    # What follows is derived and the same for every cell.

    def init(
        self,
        key: PRNGKeyArray,
        input_size: int,
        hidden_size: int,
        scheme: Scheme | None = None,
        dtype: DTypeLike | None = None,
    ) -> dict[str, dict[str, Array]]:
        """Draw parameters.

        Args:
            key: a typed PRNG key.
            input_size: D, at least 1.
            hidden_size: H, at least 1.
            scheme: how to draw; the default is Glorot-uniform inputs, orthogonal recurrence, zero biases.
            dtype: type of the parameters; None for JAX's default, float32, or float64 where `jax_enable_x64` is set.

        Raises:
            UsageError: sizes below 1, a gate in `scheme.gates` that the cell lacks, or a memory rule for a cell
                without a memory gate.
        """
        scheme, dtype = Scheme() if scheme is None else scheme, chosen_or_default(dtype)
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            at_least_one(name, size)
        self.check_scheme(scheme)
        check_equations(self, hidden_size)
        params = {
            "W": {g: scheme.input_kernel(key, g, (input_size, hidden_size), dtype) for g in self.input_gates},
            "b": {g: scheme.bias_vector(key, "b", g, hidden_size, dtype) for g in self.input_gates},
            "U": {g: scheme.recurrent_kernel(key, g, (hidden_size, hidden_size), dtype) for g in self.recurrent_gates},
            "c": {g: scheme.bias_vector(key, "c", g, hidden_size, dtype) for g in self.recurrent_biases},
            "v": {name: self._vector(key, name, hidden_size, dtype) for name in self.vectors},
        }
        if signs := self._biases_of_memory(scheme):
            retention = scheme.retention_logit(key, next(iter(signs)), hidden_size, dtype)
            params["b"] |= {gate: sign * retention for gate, sign in signs.items()}
        return {group: gates for group, gates in params.items() if gates}

    def _biases_of_memory(self, scheme: Scheme) -> dict[str, int]:
        """The gates whose bias the memory gate's rule sets, itself first, with the retention logit's sign there."""
        if self.memory is None or not scheme.rules_memory(self.memory.gate):
            return {}
        gate, sign, write, refine, _ = self.memory
        tied = ((write, scheme.ties_write_gate(gate)), (refine, scheme.ties_refine_gate(gate)))
        return {gate: sign, **{other: -1 for other, is_tied in tied if other is not None and is_tied}}

    def _vector(self, key: PRNGKeyArray, name: str, hidden_size: int, dtype: DTypeLike) -> Float[Array, " H"]:
        place = VECTORS_STREAM + self.vectors.index(name)
        vector = jnp.asarray(self.initial_vector(name, jax.random.fold_in(key, place), hidden_size), dtype)
        if vector.shape != (hidden_size,):
            came = f"{type(self).__name__}.initial_vector: {name} is {list(vector.shape)}"
            raise UsageError(f"{came}; needed is [H], {hidden_size} numbers")
        return vector

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise `UsageError` where `scheme` names a gate or a memory rule that this cell lacks, or no time scales."""
        gates = sorted({*self.input_gates, *self.recurrent_gates})
        for gate, changes in scheme.gates.items():
            check_choice("gates", gate, gates)
            self._check_overrides(gate, changes, scheme)
        if self.memory is not None:
            gate = self.memory.gate
            scheme.gate(gate).check_time_scales(f"gates.{gate}." if gate in scheme.gates else "")
        if self.memory is None and scheme.gate_bias not in ("same", "zeros"):
            raise UsageError(
                f"gate_bias={scheme.gate_bias!r}: {type(self).__name__} has no gate that holds its memory; "
                "allowed are same, zeros"
            )

    def _check_overrides(self, gate: str, changes: Mapping[str, Any], scheme: Scheme) -> None:
        """Raise `UsageError` for an override that would change nothing."""
        memory = self.memory
        for name in changes:
            why = None
            if name in MEMORY_SETTINGS and (memory is None or gate != memory.gate):
                why = f"{'no gate' if memory is None else f'gate {memory.gate!r}'} holds the memory of this cell"
            elif name in ("recurrent", "recurrent_scale") and gate not in self.recurrent_gates:
                why = "this gate has no recurrent kernel"
            elif name in ("bias", "bias_scale") and memory and gate in self._biases_of_memory(scheme):
                rule = scheme.gate(memory.gate).gate_bias
                why = f"the memory gate's rule, gate_bias={rule!r}, sets this bias"
            if why:
                raise UsageError(f"gates.{gate}.{name}: without effect on {type(self).__name__}, {why}")

    def initial_carry(self, batch_shape: tuple[int, ...], hidden_size: int, dtype: DTypeLike | None = None) -> Carry:
        """The zero state, in the carry type that goes with inputs of type `dtype`; None for JAX's default type."""
        of_carry = carry_dtype(chosen_or_default(dtype))
        parts = tuple(jnp.zeros((*batch_shape, hidden_size), of_carry) for _ in range(self.carry_parts))
        return parts if self.carry_parts > 1 else parts[0]

    def hidden(self, carry: Carry) -> Float[Array, "... H"]:
        """The hidden state h of a carry."""
        return carry[0] if self.carry_parts > 1 else carry

    def with_hidden(self, carry: Carry, h: Float[Array, "... H"]) -> Carry:
        """The carry with its hidden state replaced."""
        return (h, *carry[1:]) if self.carry_parts > 1 else h

    def input_products(self, params: Params, x: Float[Array, "... D"]) -> dict[str, Array]:
        """u_g = x W_g + b_g for every input gate, and every vector, in the carry type."""
        products = {g: product(x, params["W"][g], params["b"][g], x.dtype) for g in self.input_gates}
        return products | self.vectors_like(params, products[self.input_gates[0]])

    def vectors_like(self, params: Params, like: Float[Array, "... H"]) -> dict[str, Array]:
        """Every vector, as often as another array has it, `[..., H]`, in that one's type."""
        rows = {name: per_unit(params["v"][name].astype(like.dtype), like) for name in self.vectors}
        return {name: jnp.broadcast_to(row, like.shape) for name, row in rows.items()}

    def dense(self, params: Params, compute_dtype: DTypeLike) -> Dense:
        """The plain recurrent product, q U_g + c_g."""
        biases = params.get("c", {})
        return lambda gate, q: product(q, params["U"][gate], biases.get(gate), compute_dtype)

    def step_with_gates(
        self,
        params: Params,
        carry: Carry,
        x: Float[Array, "... D"],
        recurrent_mask: Float[Array, "... H"] | None = None,
    ) -> tuple[Carry, Gates]:
        """One step, and the value of every gate in it; with a mask, what every recurrent product reads times that."""
        check_dtypes(params, x)
        carry = jax.tree.map(lambda a: a.astype(carry_dtype(x.dtype)), carry)
        dense = self.dense(params, x.dtype)
        read = dense if recurrent_mask is None else (lambda gate, q: dense(gate, q * recurrent_mask))
        return self.equations(read, carry, self.input_products(params, x))

    def step(self, params: Params, carry: Carry, x: Float[Array, "... D"]) -> Carry:
        """One step: `[..., H], [..., D] -> [..., H]` with any leading dimensions, equal ones; pure.

        Raises:
            UsageError: parameters of another cell or size, a carry of another structure or shape, `x` is not floating,
                or float32 meets float64.
        """
        check_params(self, params, x, "x")
        check_carry("carry", self, carry, (*x.shape[:-1], hidden_size(self, params)))
        return self.step_with_gates(params, carry, x)[0]


class _Products(dict[str, Array]):
    """Input products by gate, that tell which gates there are."""

    def __init__(self, products: Mapping[str, Array], name: str) -> None:
        super().__init__(products)
        self.name = name

    def __missing__(self, gate: str) -> Array:
        raise UsageError(f"{self.name}: reads u[{gate!r}]; allowed are the input_gates and vectors, {listing(self)}")


def check_equations(cell: Cell, hidden_size: int) -> None:
    """Raise `UsageError` unless the equations of a cell read the gates that it declares, and give a carry and gates."""
    name = f"{type(cell).__name__}.equations"
    for kind in ("input_gates", "recurrent_gates", "recurrent_biases", "vectors"):
        if not isinstance(getattr(cell, kind), tuple):
            raise UsageError(f"{type(cell).__name__}.{kind}={getattr(cell, kind)!r}: a tuple of names is needed")
    twice = [name for name in cell.vectors if name in cell.input_gates or cell.vectors.count(name) > 1]
    if twice:
        raise UsageError(f"{type(cell).__name__}.vectors: {listing(sorted(set(twice)))} is a name twice")

    def dense(gate: str, q: Array) -> Array:
        check_choice(f"{name}: dense", gate, cell.recurrent_gates)
        return q

    def equations(carry: Carry, u: dict[str, Array]) -> Any:
        return cell.equations(dense, carry, _Products(u, name))

    carry = cell.initial_carry((1,), hidden_size, jnp.float32)
    u = {name: jnp.zeros((1, hidden_size), jnp.float32) for name in cell.input_gates + cell.vectors}
    try:
        result = jax.eval_shape(equations, carry, u)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        parts = f"a carry of carry_parts = {cell.carry_parts}, {_shapes(carry)}"
        raise UsageError(f"{name}: fails on {parts}: {type(error).__name__} {in_one_line(error)}") from error
    is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)
    if not is_pair:
        raise UsageError(f"{name}: returns {_shapes(result)}; needed are the next carry and a dict of gates by name")
    if _shapes(result[0]) != _shapes(carry):
        raise UsageError(f"{name}: takes a carry {_shapes(carry)} and returns {_shapes(result[0])}; they must be alike")
    for gate, value in result[1].items():
        if value.shape != (1, hidden_size):
            raise UsageError(f"{name}: gate {gate!r} is {_shapes(value)}; needed is [..., H], a value for each unit")
    memory = cell.memory
    kept = memory and (memory.kept or memory.gate)
    if kept is not None and kept not in result[1]:
        raise UsageError(f"{name}: returns the gates {listing(result[1]) or 'none'}; memory needs {kept} among them")


def _shapes(tree: PyTree) -> str:
    """Shapes and types of arrays, as they are nested."""
    return str(jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", tree)).replace("'", "")


def carry_leaves(carry: Carry) -> tuple[Array, ...]:
    """The arrays that a carry consists of, the hidden state first."""
    return carry if isinstance(carry, tuple) else (carry,)


def carry_from_leaves(cell: Cell, leaves: Sequence[Any]) -> Carry:
    """The carry of a cell made of its arrays, the inverse of `carry_leaves`."""
    return tuple(leaves) if cell.carry_parts > 1 else leaves[0]


def hidden_size(cell: Cell, params: Params) -> int:
    """The number of hidden units that a cell's parameters are made for."""
    return params["b"][cell.input_gates[0]].shape[-1]


def check_params(cell: Cell, params: Params, x: Array, name: str) -> None:
    """Raise `UsageError` unless parameters are those of a cell, for inputs `[..., D]` of this name, size and type."""
    expected = {f"{group}/{gate}" for group, names in cell.groups.items() for gate in names}
    present = {f"{group}/{gate}" for group, names in params.items() for gate in names}
    if expected != present:
        mismatch = f"lack {listing(sorted(expected - present))}" if expected - present else "are of another cell"
        raise UsageError(f"params {mismatch}: {cell} has {listing(sorted(expected))}")
    size = params["W"][cell.input_gates[0]].shape[0]
    if jnp.ndim(x) == 0 or x.shape[-1] != size:
        raise UsageError(f"{name} has {x.shape[-1] if jnp.ndim(x) else 'no'} features: params were made for D={size}")
    check_dtypes(params, x)


def check_carry(name: str, cell: Cell, carry: Carry, *shapes: tuple[int, ...]) -> None:
    """Raise `UsageError` unless a carry is as many floating arrays as a cell carries, each of one of these shapes."""
    needed = f"a tuple of {cell.carry_parts} arrays" if cell.carry_parts > 1 else "one array"
    is_tuple = isinstance(carry, tuple)
    parts = carry if is_tuple else (carry,)
    if is_tuple != (cell.carry_parts > 1) or len(parts) != cell.carry_parts:
        came = f"a tuple of {len(parts)}" if is_tuple else f"a {type(carry).__name__}"
        raise UsageError(f"{name} is {came}: {type(cell).__name__} carries {needed}")
    for part in parts:
        if jnp.shape(part) not in shapes:
            allowed = " and ".join(map(str, shapes))
            raise UsageError(f"{name} has shape {jnp.shape(part)}: allowed {'are' if shapes[1:] else 'is'} {allowed}")
        if not jnp.issubdtype(jnp.result_type(part), jnp.floating):
            raise UsageError(f"{name} has dtype {jnp.result_type(part)}: allowed are floating types")


def check_dtypes(params: Params, x: Array) -> None:
    """Raise `UsageError` unless `x` is floating and no wider or narrower in precision than `params` allow."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UsageError(f"x has dtype {x.dtype}: allowed are bfloat16, float16, float32, float64")
    for dtype in {a.dtype for a in jax.tree.leaves(params)}:
        if dtype != x.dtype and not (dtype == jnp.float32 and x.dtype.itemsize == 2):
            raise UsageError(
                f"x has dtype {x.dtype} but params have {dtype}: allowed are equal types, "
                "or half precision x with float32 params"
            )
