"""GRUs of other libraries, with our weights in them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.cells import GRU, Cell, Params

Weights = Mapping[str, Mapping[str, np.ndarray]]
AFTER, BEFORE = GRU(), GRU("before", "write")


class Peer(NamedTuple):
    """A library's GRU.

    Attributes:
        module: what must be importable.
        package: its name on the package index.
        cell: our cell with the same equations.
        has_c: whether it has the candidate's recurrent bias, if the cell has one.
        build: `weights -> (parameters, apply)`, where `apply(parameters, xs)` returns the hidden states, both
            with the axes as in `time_major`; None for one that is not a JAX program.
        time_major: whether it runs over `[T, B, D]`, as its users would call it.
    """

    module: str
    package: str
    cell: Cell
    build: Callable[[Weights], tuple[Any, Callable[[Any, jax.Array], jax.Array]]] | None
    has_c: bool = True
    time_major: bool = False

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        if importlib.util.find_spec(self.module) is None:
            return None
        return importlib.metadata.version(self.package)

    def matching_weights(self, params: Params) -> dict[str, dict[str, np.ndarray]]:
        """Our parameters without what this peer has no place for."""
        weights = {group: {g: np.asarray(a) for g, a in gates.items()} for group, gates in params.items()}
        if "c" in weights and not self.has_c:
            weights["c"] = {g: np.zeros_like(a) for g, a in weights["c"].items()}
        if not self.cell.recurrent_biases:
            weights.pop("c", None)
        return weights


def side_by_side(weights: Weights, group: str, gates: str) -> np.ndarray:
    """The arrays of some gates as one, along the last axis."""
    return np.concatenate([weights[group][gate] for gate in gates], axis=-1)


def _linen(weights: Weights) -> tuple[Any, Callable]:
    from flax import linen

    _, hidden_size = weights["W"]["n"].shape
    layer = linen.RNN(linen.GRUCell(hidden_size))
    cell = {f"i{g}": {"kernel": weights["W"][g], "bias": weights["b"][g]} for g in "rzn"}
    cell |= {f"h{g}": {"kernel": weights["U"][g]} for g in "rzn"}
    cell["hn"] = {**cell["hn"], "bias": weights["c"]["n"]}
    return {"params": {"cell": cell}}, layer.apply


def _nnx(weights: Weights) -> tuple[Any, Callable]:
    from flax import nnx

    input_size, hidden_size = weights["W"]["n"].shape
    layer = nnx.RNN(nnx.GRUCell(input_size, hidden_size, rngs=nnx.Rngs(0)))
    graph, state, rest = nnx.split(layer, nnx.Param, ...)
    values = nnx.to_pure_dict(state)
    values["cell"]["dense_i"] = {
        "kernel": side_by_side(weights, "W", "rzn"), "bias": side_by_side(weights, "b", "rzn"),
    }  # fmt: skip
    values["cell"]["dense_h"]["kernel"] = side_by_side(weights, "U", "rzn")
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, values))

    def apply(state: Any, xs: Any) -> Any:
        start = jnp.zeros((xs.shape[0], hidden_size), xs.dtype)
        return nnx.merge(graph, state, rest)(xs, initial_carry=start)

    return state, apply


def _haiku(weights: Weights) -> tuple[Any, Callable]:
    import haiku as hk  # pyright: ignore[reportMissingImports]

    _, hidden_size = weights["W"]["n"].shape

    def network(xs: Any) -> Any:
        core = hk.GRU(hidden_size)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    params = {"gru": {"w_i": side_by_side(weights, "W", "zrn"), "w_h": side_by_side(weights, "U", "zrn"),
                      "b": side_by_side(weights, "b", "zrn")}}  # fmt: skip
    transformed = hk.without_apply_rng(hk.transform(network))
    return params, transformed.apply


def _keras(weights: Weights) -> tuple[Any, Callable]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras  # pyright: ignore[reportMissingImports]

    input_size, hidden_size = weights["W"]["n"].shape
    layer = keras.layers.GRU(hidden_size, return_sequences=True, reset_after=True)
    layer.build((None, None, input_size))
    outer = np.concatenate([weights["c"].get(g, np.zeros(hidden_size, np.float32)) for g in "zrn"])
    params = [side_by_side(weights, "W", "zrn"), side_by_side(weights, "U", "zrn"),
              np.stack([side_by_side(weights, "b", "zrn"), outer])]  # fmt: skip
    rest = [variable.value for variable in layer.non_trainable_variables]
    return params, lambda params, xs: layer.stateless_call(params, rest, xs)[0]


def _equinox(weights: Weights) -> tuple[Any, Callable]:
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    input_size, hidden_size = weights["W"]["n"].shape
    cell = eqx.nn.GRUCell(input_size, hidden_size, key=jax.random.key(0))
    arrays = [side_by_side(weights, "W", "rzn").T, side_by_side(weights, "U", "rzn").T,
              side_by_side(weights, "b", "rzn"), weights["c"]["n"]]  # fmt: skip
    cell = eqx.tree_at(lambda c: [c.weight_ih, c.weight_hh, c.bias, c.bias_n], cell, [jnp.asarray(a) for a in arrays])
    params, static = eqx.partition(cell, eqx.is_array)

    def sequence(params: Any, xs: Any) -> Any:
        step = eqx.combine(params, static)

        def body(h: Any, x: Any) -> tuple[Any, Any]:
            h = step(x, h)
            return h, h

        return jax.lax.scan(body, jnp.zeros(hidden_size), xs)[1]

    return params, jax.vmap(sequence, in_axes=(None, 0))


PEERS: dict[str, Peer] = {
    "torch": Peer("torch", "torch", AFTER, None),
    "linen": Peer("flax", "flax", AFTER, _linen),
    "nnx": Peer("flax", "flax", AFTER, _nnx, has_c=False),
    "haiku": Peer("haiku", "dm-haiku", BEFORE, _haiku, time_major=True),
    "keras": Peer("keras", "keras", AFTER, _keras),
    "equinox": Peer("equinox", "equinox", AFTER, _equinox),
}


def installed_peers(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split names of peers into those that are installed and those that are not."""
    installed = [name for name in names if PEERS[name].version is not None]
    return installed, [name for name in names if name not in installed]


def peer_versions() -> dict[str, str]:
    """The versions of all installed peers, by the name of their package."""
    return {peer.package: peer.version for peer in PEERS.values() if peer.version}


def torch_step(weights: Weights, xs: np.ndarray, last: bool) -> tuple[Callable[[], Any], np.ndarray]:
    """A training step of `torch.nn.GRU`, and its hidden states."""
    import torch  # pyright: ignore[reportMissingImports]

    module = torch.nn.GRU(xs.shape[-1], weights["b"]["r"].shape[0], batch_first=True)
    outer = np.concatenate([weights["c"].get(g, np.zeros_like(weights["b"][g])) for g in "rzn"])
    arrays = {"weight_ih_l0": side_by_side(weights, "W", "rzn").T, "weight_hh_l0": side_by_side(weights, "U", "rzn").T,
              "bias_ih_l0": side_by_side(weights, "b", "rzn"), "bias_hh_l0": outer}  # fmt: skip
    with torch.no_grad():
        for name, value in arrays.items():
            getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    x = torch.from_numpy(np.array(xs))

    def step() -> Any:
        module.zero_grad(set_to_none=True)
        hs = module(x)[0]
        hs = hs[:, -1] if last else hs
        (hs**2).mean().backward()

    with torch.no_grad():
        return step, module(x)[0].numpy()


def quietly(function: Callable[..., Any], *args: Any) -> Any:
    """Call with the warnings of other libraries silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)
