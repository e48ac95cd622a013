"""Looking inside networks that read texts: what is attributed to tokens, what units track, and the page."""

from __future__ import annotations

import html
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import inspect, train
from gru_jax.config import load
from gru_jax.data.vocabulary import build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.inspect import fit_probe, probe_units, r_squared
from gru_jax.runs.inspection.texts import coloured_text, escaped_token
from gru_jax.tasks.text_variables import text_variables, texts_of_tokens
from tests.experiments.test_inspect import WIDE
from tests.experiments.test_report import drawn

LINES = 'He said "yes" <b>&amp;\n(and [went] away)\nto "be" $x$ 漢\n' * 30
ROWS = [("A fine <b>film</b> &", "good"), ("fine not dull 漢", "good"), ("dull, dull $x$", "bad"), ("not fine", "bad")]
"""Two by two, as probes are fitted to every other sequence."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A language model, and a classifier, each trained a little."""
    folder, made = tmp_path_factory.mktemp("texts"), {}
    (folder / "a.txt").write_text(LINES)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in 3 * ROWS))
    text = {"name": "text", "train": "a.txt", "valid_fraction": 0.4, "test_fraction": 0.1, "length": 30}
    tasks = {"language": text, "classes": {"name": "text_table"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        for name, task in tasks.items():
            config = load({
                "task": {**task, "data_dir": str(folder)}, "model": {"hidden": (4,), "embedding": 3}, "devices": 1,
                "train": {"steps": 8, "batch_size": 4, "eval_steps": 4}, "flow": {"every": 0},
            })  # fmt: skip
            made[name] = train.run(config, folder / name)
    return made


@pytest.fixture(scope="module")
def inspections(runs):
    return {name: run.inspect() for name, run in runs.items()}


@pytest.mark.parametrize("name", ["language", "classes"])
def test_tokens_share_out_what_the_unknown_one_does_not_say(name, runs, inspections):
    """Complete to 1e-3 over embeddings; hidden tokens are unknown ones; padding has nothing."""
    run, inspection = runs[name], inspections[name]
    made, batch = inspection.attributions, inspection.batch
    xs = np.asarray(batch.xs[:4])
    lengths = np.full(4, xs.shape[1]) if batch.lengths is None else np.asarray(batch.lengths[:4])

    def output(tokens):
        outputs = np.asarray(run.model(jnp.asarray(tokens), lengths=jnp.asarray(lengths)))
        rows = np.arange(4)
        outputs = outputs[rows, lengths - 1] if outputs.ndim == 3 else outputs
        return outputs[rows, made.explained.output]

    whole = output(xs)
    unknown = run.config.task.facts.vocabulary.unknown
    np.testing.assert_allclose(made.difference, whole - output(np.full_like(xs, unknown)), atol=1e-5)
    np.testing.assert_allclose(made.shares.sum(axis=(1, 2)), made.difference, atol=1e-3)
    hidden = xs.copy()
    hidden[:, 1] = unknown
    np.testing.assert_allclose(made.falls[:, 1], whole - output(hidden), atol=1e-5)
    beyond = np.arange(xs.shape[1]) >= lengths[:, None]
    np.testing.assert_array_equal(made.shares[beyond], 0.0)
    assert made.width == 1


def test_where_units_are_greatest(inspections):
    inspection = inspections["language"]
    contexts, states = inspection.contexts["layer_0"], inspection.cells["layer_0"].states
    assert contexts.values.shape == (4, 5)
    shown = states[..., :4].max(axis=(0, 1))
    assert (contexts.values[:, 0] >= shown - 1e-6).all()  # the shown sequences are among all
    assert (np.diff(contexts.values, axis=1) <= 0).all()
    for unit in range(4):
        assert len(set(contexts.sequences[unit])) == 5
        for sequence, step, value in zip(*(part[unit] for part in contexts), strict=True):
            if sequence < len(states):
                np.testing.assert_allclose(states[sequence, step, unit], value, atol=1e-6)


def test_what_a_text_has_at_every_token():
    """Against a plain loop over characters."""
    text = 'a "bc" (d [e]\n f) “gh” "i\n'
    vocabulary = build_vocabulary("characters", text)
    values = text_variables(jnp.asarray(vocabulary.encode(text))[None], texts_of_tokens(vocabulary))
    wanted, straight, directed, line, depth = [], 0, 0, 0, 0
    for sign in text:
        straight += sign == '"'
        directed += (sign == "“") - (sign == "”")
        depth += (sign in "([{") - (sign in ")]}")
        line = 0 if sign == "\n" else line + 1
        wanted.append((float(straight % 2 or directed > 0), line, depth))
    assert list(values) == ["within quotes", "position in line", "depth of brackets"]
    np.testing.assert_array_equal(np.stack([np.asarray(v)[0] for v in values.values()], axis=1), wanted)
    words = build_vocabulary("words", "to be\nor not\n")
    lines = text_variables(jnp.asarray(words.encode("to be\nor not"))[None], texts_of_tokens(words))
    np.testing.assert_array_equal(lines["position in line"], [[3, 6, 0, 3, 7]])
    assert list(lines) == ["position in line"]


def test_a_unit_that_tracks_is_named_and_luck_is_not():
    """Against least squares of each unit; a trend over steps that all sequences have is in the control."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 6, 2)) + np.arange(6)[None, :, None] * [0.0, 3.0]
    states = rng.normal(size=(40, 6, 3))
    states[..., 1] = 0.5 * target[..., 0] + 0.1 * states[..., 1]
    states[..., 2] = np.arange(6)  # knows the step alone
    valid = rng.random((40, 6)) < 0.9
    measured = probe_units(*(jnp.asarray(a, jnp.float32) for a in (states, target)), valid=jnp.asarray(valid))
    fit, test = (valid[start::2].ravel() for start in (0, 1))
    for unit in range(3):
        x, y = states[..., unit], target[..., 0]
        slope, offset = np.polyfit(x[::2].ravel()[fit], y[::2].ravel()[fit], 1)
        tested = y[1::2].ravel()[test]
        score = (
            1
            - np.square(tested - slope * x[1::2].ravel()[test] - offset).sum() / np.square(tested - tested.mean()).sum()
        )
        np.testing.assert_allclose(measured.scores[unit, 0], score, atol=1e-4)
    assert measured.scores[1, 0] > 0.9
    assert measured.control[0] < 0.1
    assert measured.scores[2, 1] > 0.9  # as much as for other sequences' numbers
    assert abs(measured.scores[2, 1] - measured.control[1]) < 0.05
    rows = [jnp.asarray(a.reshape(-1, a.shape[-1]), jnp.float32) for a in (states[::2], target[::2])]
    new = [jnp.asarray(a.reshape(-1, a.shape[-1]), jnp.float32) for a in (states[1::2], target[1::2])]
    probe = fit_probe(*rows, counts=jnp.asarray(fit))
    np.testing.assert_allclose(measured.together, r_squared(probe.read(new[0]), new[1], jnp.asarray(test)), atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("language", marks=pytest.mark.slow), "classes"])
def test_the_page_in_a_browser(name, inspections, tmp_path):
    """Every token stands there once a colouring, escaped, and nothing is wider than the window."""
    inspection = inspections[name]
    page = inspection.write(tmp_path / "page.html")
    text = page.read_text()
    assert "<b>" not in text
    section = text.split('id="attributions"')[1].split("</section>")[0]
    spans = [
        html.unescape(span)
        for span in re.findall(r'<span style="background:[^"]*" title="[^"]*">(.*?)</span>', section, re.S)
    ]
    texts = texts_of_tokens(inspection.config.task.facts.vocabulary)
    batch = inspection.batch
    length = batch.xs.shape[1] if batch.lengths is None else int(batch.lengths[0])
    assert spans[:length] == [texts[n].replace("\n", "↵\n") for n in np.asarray(batch.xs[0])[:length]]
    page.write_text(text.replace("</body>", f"{WIDE}</body>"))
    document = drawn(page, flags=["--window-size=1280,2000"])
    assert 'data-across="true"' in document
    assert 'data-narrow="true"' in document
    for part in ("contexts", "traces", *(("units",) if name == "language" else ("probes",))):
        assert f'id="{part}"' in document


def test_what_it_says(inspections):
    described = "\n".join(inspections["language"].describe())
    for name in ("within quotes", "position in line", "depth of brackets"):
        assert re.search(rf"layer_0: {name}: unit \d by itself tells", described), name
    assert "layer_0: of good a linear probe reads" in "\n".join(inspections["classes"].describe())


def test_tokens_cannot_break_the_page():
    made = coloured_text(['<script>"', "\n"], [1.0, -2.0])
    assert "<script>" not in made
    assert "rgba(213,94,0,0.38)" in made
    assert "rgba(0,114,178,0.75)" in made
    assert escaped_token("\n") == "↵\n"


def test_a_decoder_is_refused_in_one_line(tmp_path):
    config = load({"task": {"name": "reverse"}, "model": {"hidden": (4,)}, "train": {"steps": 1, "batch_size": 4}})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UsageError, match="its network has a decoder; allowed are those without one"):
        inspect.command(["--workdir", str(tmp_path)])
