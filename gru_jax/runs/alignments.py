"""Where the decoder of a run's network looks, on test examples."""

from __future__ import annotations

import jax
import numpy as np

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.arrays import LENGTHS, XS
from gru_jax.plotting.attention import Alignment
from gru_jax.runs.directory import RunDir
from gru_jax.runs.predictions import pairs_of_split
from gru_jax.runs.stored import restore_state
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.tasks.sequence_to_sequence import SequenceToSequence
from gru_jax.training.decoding import Search, attention_of, write_all
from gru_jax.training.network import build_model

SHOWN = 4
MOST_TOKENS = 30
"""Of a source that is shown, where there are such."""


def alignments_of_run(rundir: RunDir, config: Config, split: str = "test") -> list[Alignment]:
    """Where the network of a run that was best in validation looks while it writes greedily, of a few examples.

    They are those with the longest sources of up to 30 tokens.

    Raises:
        UsageError: there is no such checkpoint, or data.
    """
    task, model, device = config.task, build_model(config), choose_device(config.platform)
    assert isinstance(task, SequenceToSequence)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        params = restore_state(rundir, config, device, BEST).params
        pairs = pairs_of_split(config, split, jax.device_put(task.load(split)))
        lengths = pairs[LENGTHS]
        order = np.lexsort((lengths * np.where(lengths > MOST_TOKENS, 1, -1), lengths > MOST_TOKENS))[:SHOWN]
        xs, lengths = pairs[XS][order], lengths[order]
        written = write_all(config, model, params, xs, lengths, Search())
        weights = attention_of(model, params, xs, lengths, written.tokens, task.end_token)
    return [
        Alignment(of_one[:m, :n], task.source_labels(source[:n].tolist()), task.target_labels(target[:m].tolist()))
        for of_one, source, target, n, m in zip(weights, xs, written.tokens, lengths, written.lengths, strict=True)
    ]
