"""What a config does in a step to keep a network from fitting its training examples alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from gru_jax.config import Config, RegularizationConfig, Values
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError
from gru_jax.nn import CellPlace, Functional, LayerTrace, Trace
from gru_jax.nn.parts import nested, with_leaves
from gru_jax.norms import euclidean_norm
from gru_jax.tasks import Batch
from gru_jax.training.network import mean_over_examples, trace_on_example
from gru_jax.unroll import valid_steps

EMBEDDING = "embedding"
"""How a table of a vector for each token is called among the parameters."""
WEIGHT_NOISE, DROPCONNECT, INPUT_NOISE, RECURRENT_DROPOUT = range(4)
"""Numbers by which what is random is drawn, from the key of a step."""


def regularised_loss(
    config: Config, loss: Float[Array, ""], trace: Trace, batch: Batch, values: Values
) -> Float[Array, ""]:
    """What is minimised in place of the mean loss of a batch; the loss itself where nothing is asked for.

    Like the loss, it is a mean over the examples by their weights.

    Args:
        config: the config.
        loss: of the batch.
        trace: of the network on it.
        batch: the batch.
        values: hyperparameters of the section `regularization`.
    """
    regularization = config.regularization
    if regularization.label_smoothing:
        share = values["label_smoothing"].astype(loss.dtype)
        of_all = mean_over_examples(uniform_cross_entropy(config, trace.outputs, batch), batch)
        loss = (1.0 - share) * loss + share * of_all.astype(loss.dtype)
    for name, penalty in (("activation", square_of_states), ("temporal_activation", square_of_changes)):
        if getattr(regularization, name):
            mean = mean_over_examples(penalty(trace.layers[-1]), batch)
            loss = loss + (values[name] * mean).astype(loss.dtype)
    return loss


def check_label_smoothing(config: Config, data: Mapping[str, Any]) -> None:
    """Raise `UsageError` where labels are to be smoothed and the targets of such data are no classes."""
    if config.regularization.label_smoothing:
        trace_on_example(config, data, lambda trace, batch: uniform_cross_entropy(config, trace.outputs, batch))


def uniform_cross_entropy(config: Config, outputs: Array, batch: Batch) -> Float[Array, " B"]:
    """The cross-entropy of each example, were each of the K classes its target with probability 1 / K.

    Of an example with several steps, the mean over those that count.

    Raises:
        UsageError: the task's targets are no classes, one for each row of logits.
    """
    task = config.task
    logits, targets, weights = task.answers(outputs, batch._replace(weights=None))
    if not jnp.issubdtype(targets.dtype, jnp.integer) or logits.shape != outputs.shape:
        raise UsageError(
            f"regularization.label_smoothing={config.regularization.label_smoothing:g}: the targets of this task are "
            "numbers or labels; allowed is 0, or a task whose targets are classes, one for each row of logits"
        )
    of_all = -jax.nn.log_softmax(outputs, axis=-1).mean(axis=-1)
    steps = tuple(range(1, of_all.ndim))
    counted = jnp.where(weights > 0, of_all * weights.astype(of_all.dtype), 0).sum(axis=steps)
    total = weights.astype(of_all.dtype).sum(axis=steps)
    return counted / jnp.where(total > 0, total, 1)  # of an example of which no step counts


def square_of_states(top: LayerTrace) -> Float[Array, " B"]:
    """The mean square of a layer's states `[B, T, H]` over units and the steps that count, of each sequence."""
    return _mean_square(_states(top), top)


def square_of_changes(top: LayerTrace) -> Float[Array, " B"]:
    """The mean square of the change of a layer's states from each step to the next, where both count."""
    states = _states(top)
    return _mean_square(states[:, 1:] - states[:, :-1], top)


def _states(top: LayerTrace) -> Float[Array, "B T H"]:
    hs = top.unrolled.hs
    return hs.astype(carry_dtype(hs.dtype))


def _mean_square(differences: Float[Array, "B N H"], top: LayerTrace) -> Float[Array, " B"]:
    """The mean square over units and the last N of T steps, of these those that count."""
    batch, time, _ = top.inputs.shape
    squares = jnp.square(differences).mean(axis=-1)
    valid = valid_steps(top.lengths, batch, time)
    if valid is None:
        return squares.mean(axis=1) if squares.shape[1] else jnp.zeros(batch, squares.dtype)
    counts = valid[:, time - squares.shape[1] :]
    return jnp.where(counts, squares, 0).sum(axis=1) / jnp.maximum(counts.sum(axis=1), 1).astype(squares.dtype)


def perturbed_weights(config: Config, model: Functional, params: PyTree, key: PRNGKeyArray, values: Values) -> PyTree:
    """The parameters that a step sees, kernels drawn at random about those that there are.

    In expectation they are the parameters: noise has mean zero, and of a recurrent kernel, with probability p of
    dropping a weight, w is 0 or w / (1 - p).

    Args:
        config: the config.
        model: its network.
        params: of the network.
        key: of the step.
        values: hyperparameters of the section `regularization`.
    """
    if config.regularization.weight_noise:
        params = _with_noise(params, jax.random.fold_in(key, WEIGHT_NOISE), values["weight_noise"])
    if config.regularization.dropconnect:
        params = _dropped(model, params, jax.random.fold_in(key, DROPCONNECT), values["dropconnect"])
    return params


def _with_noise(params: PyTree, key: PRNGKeyArray, deviation: Any) -> PyTree:
    noise = _split_like(params, lambda count, dtype: deviation.astype(dtype) * jax.random.normal(key, (count,), dtype))
    return jax.tree.map(lambda leaf, change: leaf if change is None else leaf + change, params, noise)


def _dropped(model: Functional, params: PyTree, key: PRNGKeyArray, probability: Any) -> PyTree:
    """Parameters whose recurrent kernels have weights dropped."""
    recurrent = [place.parameters(params)["U"] for _, place in model.cells]
    masks = _split_like(recurrent, lambda count, _: jax.random.bernoulli(key, 1.0 - probability, (count,)))

    def kept(kernel: Array, mask: Array) -> Array:
        return jnp.where(mask, kernel / (1.0 - probability).astype(kernel.dtype), 0)

    changes = zip(model.cells, jax.tree.map(kept, recurrent, masks), strict=True)
    return with_leaves(params, nested({(*place.path, "U"): kernels for (_, place), kernels in changes}))


def _split_like(tree: PyTree, draw: Callable[[int, Any], Array]) -> PyTree:
    """What `draw(count, dtype)` gives for all kernels of a tree at once, in their shapes; None in place of biases."""
    leaves, structure = jax.tree.flatten(tree)
    sizes = [leaf.size if leaf.ndim > 1 else 0 for leaf in leaves]
    ends = np.cumsum(sizes)
    flat = draw(int(ends[-1]), leaves[0].dtype)
    parts = [
        flat[end - size : end].reshape(leaf.shape) if size else None
        for leaf, size, end in zip(leaves, sizes, ends.tolist(), strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def with_input_noise(config: Config, batch: Batch, keys: Key[Array, " B"] | None, values: Values) -> Batch:
    """A batch whose inputs have Gaussian noise, drawn by a key for each sequence, `[B]`."""
    if not config.regularization.input_noise or keys is None:
        return batch

    def drawn(key: PRNGKeyArray) -> Array:
        return jax.random.normal(jax.random.fold_in(key, INPUT_NOISE), batch.xs.shape[1:], batch.xs.dtype)

    return batch._replace(xs=batch.xs + values["input_noise"].astype(batch.xs.dtype) * jax.vmap(drawn)(keys))


def recurrent_masks(
    config: Config, model: Functional, batch: Batch, keys: Key[Array, " B"] | None, values: Values
) -> dict[str, tuple[Float[Array, "B _ W"], ...]]:
    """The argument `recurrent_masks` of a model, drawn by a key for each sequence; none where nothing is dropped.

    0 with probability p and 1 / (1 - p) otherwise, which is 1 in expectation: of each layer `[B, T, H]`, or `[B, 1, H]`
    where it is the same at all steps, of two directions those of both side by side.
    """
    regularization = config.regularization
    if not regularization.recurrent_dropout or keys is None:
        return {}
    dtype = carry_dtype(config.dtype)
    keep = (1.0 - values["recurrent_dropout"]).astype(dtype)

    def of_layer(number: int, places: Sequence[CellPlace]) -> Array:
        read = batch.xs if batch.decoder_inputs is None or places[0].encodes else batch.decoder_inputs
        time = read.shape[1]
        shape = (time if regularization.recurrent_dropout_per == "step" else 1, sum(place.units for place in places))

        def of_sequence(key: PRNGKeyArray) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(key, RECURRENT_DROPOUT), number)
            return jnp.where(jax.random.bernoulli(key, keep, shape), 1.0 / keep, 0)

        return jax.vmap(of_sequence)(keys)

    return {"recurrent_masks": tuple(of_layer(*numbered) for numbered in enumerate(model.layers))}


def orthogonality_gradient(config: Config, model: Functional, params: PyTree, values: Values) -> PyTree:
    """The gradient of lambda sum_U ||U^T U - I||^2 over all recurrent kernels; None without that penalty."""
    if not config.regularization.orthogonality:
        return None
    return jax.grad(lambda p: values["orthogonality"] * orthogonality(model, p))(params)


def orthogonality(model: Functional, params: PyTree) -> Float[Array, ""]:
    """The sum over recurrent kernels of ||U^T U - I||^2, which is zero where all are orthogonal."""
    kernels = [kernel for _, place in model.cells for kernel in place.parameters(params)["U"].values()]
    terms = [jnp.square(kernel.T @ kernel - jnp.eye(len(kernel), dtype=kernel.dtype)).sum() for kernel in kernels]
    return sum(terms[1:], terms[0])


def is_product_kernel(path: tuple[Any, ...], leaf: Array) -> bool:
    """Whether a parameter at a place of the tree is a matrix that is multiplied with: no vector, and no embedding."""
    return leaf.ndim > 1 and path[-1].key != EMBEDDING


def with_bounded_columns(config: RegularizationConfig, params: PyTree, values: Values) -> PyTree:
    """Parameters of whose kernels each column is scaled down to the norm `max_norm`, if it is longer.

    The columns of `[D, H]` are what each of H units reads with. An embedding, a vector for each token, has none.
    """
    if config.max_norm is None:
        return params

    def bounded(path: tuple[Any, ...], leaf: Array) -> Array:
        if not is_product_kernel(path, leaf):
            return leaf
        norms, greatest = euclidean_norm(leaf.swapaxes(-1, -2))[..., None, :], values["max_norm"].astype(leaf.dtype)
        return jnp.where(norms > greatest, leaf * (greatest / jnp.where(norms > 0, norms, 1)), leaf)

    return jax.tree.map_with_path(bounded, params)
