"""Heads whose outputs are computed in blocks of sequences, against those computed at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.tasks import split_key
from gru_jax.tasks.likeliest import is_likeliest, likeliest
from gru_jax.training import large_heads
from gru_jax.training.network import build_model, draw_batch, mean_over_examples, run_for_loss, run_network
from tests.training.test_translation import reversing


def gradients(config, monkeypatch, blocks, in_one_pass=True):
    """The loss, the metrics and the gradients, with outputs in so many blocks."""
    calls, model = [], build_model(config)
    monkeypatch.setattr(large_heads, "blocks_of", lambda sequences, of_each: calls.append(sequences) or blocks)
    batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(6, dtype=jnp.int32))
    batch = batch._replace(weights=jnp.arange(6.0))
    params = model.init(jax.random.key(0))

    def loss(params):
        if in_one_pass:
            return run_for_loss(config, model, params, batch)[1:]
        metrics = run_network(config, model, params, batch)[1]
        return mean_over_examples(metrics["loss"], batch), metrics

    (value, metrics), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert calls == [6]
    return loss, params, (value, metrics, grads)


PLAIN = {"bidirectional": False, "attention": "none"}  # which compiles fast, and has the same head


@pytest.mark.parametrize("in_one_pass", [True, False])
def test_blocks_give_the_same_loss_metrics_and_gradients(in_one_pass, monkeypatch, x64):
    config = reversing(dtype="float64", model=PLAIN)
    loss, params, at_once = gradients(config, monkeypatch, 1, in_one_pass)
    _, _, in_blocks = gradients(config, monkeypatch, 3, in_one_pass)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), at_once, in_blocks)
    leaves, structure = jax.tree.flatten(params)  # finite differences along one direction
    keys = jax.random.split(jax.random.key(1), len(leaves))
    ways = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    compiled = jax.jit(lambda p: loss(p)[0])
    moved = [
        compiled(jax.tree.unflatten(structure, [a + step * b for a, b in zip(leaves, ways, strict=True)]))
        for step in (1e-5, -1e-5)
    ]
    slope = sum(float((g * w).sum()) for g, w in zip(jax.tree.leaves(in_blocks[2]), ways, strict=True))
    np.testing.assert_allclose((moved[0] - moved[1]) / 2e-5, slope, rtol=1e-7)


def test_a_gradient_of_the_forward_pass_is_scaled_and_is_of_the_head_and_what_it_reads(monkeypatch, x64):
    """Under vmap too, as members of a population are."""
    config = reversing(dtype="float64", model={**PLAIN, "embedding": None, "tied": True})
    model = build_model(config)
    batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(6, dtype=jnp.int32))
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))

    def gradient(params, factor):
        return jax.grad(lambda p: factor * run_for_loss(config, model, p, batch)[1])(params)

    factors = jnp.array([2.0, -3.0])
    at_once = jax.vmap(gradient)(params, factors)
    monkeypatch.setattr(large_heads, "blocks_of", lambda *_: 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14),
        at_once,
        jax.jit(jax.vmap(gradient))(params, factors),
    )


def test_in_single_precision_they_are_equal_to_one_millionth(monkeypatch):
    config = reversing(model={**PLAIN, "embedding": None, "tied": True})
    at_once, in_blocks = (gradients(config, monkeypatch, blocks)[2] for blocks in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), at_once, in_blocks)


def test_no_more_than_a_block_is_in_memory():
    """What the compiled gradient needs beside its arguments, of a head over 10,000 words."""
    config = reversing(task={"length": 20, "symbols": 9_999}, model=PLAIN)
    assert config.task.output_size == 10_000
    model = build_model(config)
    index, outputs = jnp.arange(40, dtype=jnp.int32), 40 * 21 * 10_000

    def loss(params):
        batch = draw_batch(config, {}, split_key("valid", 0), index)
        return run_for_loss(config, model, params, batch)[1]

    compiled = jax.jit(jax.grad(loss)).lower(model.init(jax.random.key(0))).compile()
    assert large_heads.blocks_of(40, 21 * 10_000) == 5
    assert compiled.memory_analysis().temp_size_in_bytes < 0.6 * 4 * outputs  # at once it is more than their size


def test_the_likeliest_class_is_that_of_argmax():
    logits = jnp.round(2 * jax.random.normal(jax.random.key(0), (200, 7)))  # many are equal
    labels = jax.random.randint(jax.random.key(1), (200,), 0, 7)
    wanted = np.argmax(logits, axis=-1)
    np.testing.assert_array_equal(likeliest(logits), wanted)
    np.testing.assert_array_equal(is_likeliest(logits, labels), wanted == np.asarray(labels))
    assert 0.1 < float(is_likeliest(logits, labels).mean()) < 0.4
