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
from jaxtyping import PyTree

from gru_jax import interop
from gru_jax.cells import GRU, Cell, Params
from gru_jax.errors import UsageError

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


def one_layer(cell: Cell, weights: Weights) -> interop.Weights:
    """The weights of a cell as those of a network of one layer."""
    return interop.Weights(cell, ((weights,),))


def _linen(weights: Weights) -> tuple[Any, Callable]:
    from flax import linen

    _, hidden_size = weights["W"]["n"].shape
    (variables,) = interop.to_linen(one_layer(AFTER, weights))
    return variables, linen.RNN(linen.GRUCell(hidden_size)).apply


def _nnx(weights: Weights) -> tuple[Any, Callable]:
    from flax import nnx

    input_size, hidden_size = weights["W"]["n"].shape
    layer = nnx.RNN(nnx.GRUCell(input_size, hidden_size, rngs=nnx.Rngs(0)))
    graph, state, rest = nnx.split(layer, nnx.Param, ...)
    (arrays,) = interop.to_nnx(one_layer(AFTER, weights))
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays))

    def apply(state: PyTree, xs: Any) -> Any:
        start = jnp.zeros((xs.shape[0], hidden_size), xs.dtype)
        return nnx.merge(graph, state, rest)(xs, initial_carry=start)

    return state, apply


def _haiku(weights: Weights) -> tuple[Any, Callable]:
    import haiku as hk  # pyright: ignore[reportMissingImports]

    _, hidden_size = weights["W"]["n"].shape

    def network(xs: Any) -> Any:
        core = hk.GRU(hidden_size)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    transformed = hk.without_apply_rng(hk.transform(network))
    return interop.to_haiku(one_layer(BEFORE, weights)), transformed.apply


def _keras(weights: Weights) -> tuple[Any, Callable]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras  # pyright: ignore[reportMissingImports]

    input_size, hidden_size = weights["W"]["n"].shape
    layer = keras.layers.GRU(hidden_size, return_sequences=True, reset_after=True)
    layer.build((None, None, input_size))
    rest = [variable.value for variable in layer.non_trainable_variables]
    arrays = interop.to_keras(one_layer(AFTER, weights))
    return arrays, lambda params, xs: layer.stateless_call(params, rest, xs)[0]


def equinox_cell(weights: Weights) -> Any:
    """A cell of Equinox with our weights."""
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    input_size, hidden_size = weights["W"]["n"].shape
    cell = eqx.nn.GRUCell(input_size, hidden_size, key=jax.random.key(0))
    kernel, recurrent, bias, _ = interop.fuse(weights, "rzn")
    arrays = [kernel.T, recurrent.T, bias, weights["c"]["n"]]
    return eqx.tree_at(lambda c: [c.weight_ih, c.weight_hh, c.bias, c.bias_n], cell, [jnp.asarray(a) for a in arrays])


def _equinox(weights: Weights) -> tuple[Any, Callable]:
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    _, hidden_size = weights["W"]["n"].shape
    params, static = eqx.partition(equinox_cell(weights), eqx.is_array)

    def sequence(params: PyTree, xs: Any) -> Any:
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


def torch_step(weights: Weights, xs: np.ndarray, loss: str) -> tuple[Callable[[], Any], np.ndarray]:
    """A training step of `torch.nn.GRU` on the device that JAX uses (on a GPU it is cuDNN's), and its hidden states.

    The step is of the loss `all` or `last`, or for `none` the pass forwards alone.

    Raises:
        UsageError: JAX uses a GPU, and this PyTorch has none.
    """
    import torch  # pyright: ignore[reportMissingImports]

    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise UsageError("--peers=torch: built without CUDA, and JAX uses a GPU; leave it out or install another")
    module = torch.nn.GRU(xs.shape[-1], weights["b"]["r"].shape[0], batch_first=True)
    state = interop.to_torch(one_layer(AFTER, weights))
    module.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
    x = torch.from_numpy(np.array(xs))
    if on_gpu:
        module, x = module.cuda(), x.cuda()

    def step() -> Any:
        if loss == "none":
            with torch.no_grad():
                module(x)
        else:
            module.zero_grad(set_to_none=True)
            hs = module(x)[0]
            hs = hs[:, -1] if loss == "last" else hs
            (hs**2).mean().backward()
        if on_gpu:
            torch.cuda.synchronize()

    fast_products = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # while hidden states are compared
    with torch.no_grad():
        hs = module(x)[0].cpu().numpy()
    torch.backends.cudnn.allow_tf32 = fast_products
    return step, hs


def quietly(function: Callable[..., Any], *args: Any) -> Any:
    """Call with the warnings of other libraries silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)
