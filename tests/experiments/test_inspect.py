"""Looking inside a run: the numbers from Python, the page in a real browser, and errors of use."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from experiments import inspect, train
from gru_jax.errors import UsageError
from gru_jax.plotting.inspection import INK
from gru_jax.runs.directory import RunDir
from gru_jax.runs.inspection.measure import resting_input
from tests.experiments.test_report import drawn
from tests.training.small import small

WIDE = (
    "<script>document.body.dataset.across = document.documentElement.scrollWidth <= window.innerWidth;"
    "document.body.dataset.paper = getComputedStyle(document.body).backgroundColor;"
    "document.body.dataset.narrow = [...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().right"
    " <= document.body.getBoundingClientRect().right + 1 && s.getBoundingClientRect().height > 100);</script>"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Classes, lengths, two layers, two parts of a carry."""
    task = {"name": "temporal_order", "length": 20, "valid_size": 40, "test_size": 40}
    config = small(task=task, model={"hidden": (4, 3), "cell": {"name": "lstm"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        return train.run(config, tmp_path_factory.mktemp("inspect") / "run")


@pytest.fixture(scope="module")
def inspection(run):
    return run.inspect(against=[run])


def test_what_outputs_hang_on(run, inspection):
    made = inspection.attributions
    xs = np.asarray(inspection.batch.xs[:4])
    lengths = np.asarray(inspection.batch.lengths[:4])
    outputs = np.asarray(run.predict(xs, lengths).outputs)
    np.testing.assert_allclose(outputs, inspection.outputs[:4], atol=1e-5)
    np.testing.assert_array_equal(made.explained.output, outputs.argmax(axis=1))  # the class that the network says
    blank = np.asarray(run.predict(np.zeros_like(xs), lengths).outputs)
    rows = np.arange(4)
    wanted = (outputs - blank)[rows, outputs.argmax(axis=1)]
    np.testing.assert_allclose(made.difference, wanted, atol=1e-5)
    np.testing.assert_allclose(made.shares.sum(axis=(1, 2)), wanted, atol=1e-3)
    beyond = np.arange(xs.shape[1]) >= lengths[:, None]
    assert beyond.any()
    for values in (made.shares, made.saliency):
        np.testing.assert_array_equal(values[beyond], 0.0)
    assert made.falls.shape == (4, 22)
    hidden = np.where((np.arange(xs.shape[1]) == 3)[None, :, None], 0.0, xs)
    fall = (outputs - np.asarray(run.predict(hidden, lengths).outputs))[rows, outputs.argmax(axis=1)]
    np.testing.assert_allclose(made.falls[:, 3], fall, atol=1e-5)


def test_what_cells_do(run, inspection):
    assert list(inspection.cells) == ["layer_0", "layer_1"]
    trace = run.model.trace(inspection.batch.xs[:4], lengths=inspection.batch.lengths[:4])
    for layer, (cell, units) in enumerate(zip(inspection.cells.values(), (4, 3), strict=True)):
        assert cell.states.shape == (4, 22, 2 * units)
        hs = np.asarray(trace.layers[layer].unrolled.hs)
        within = np.arange(22) < np.asarray(inspection.batch.lengths[:4])[:, None]
        np.testing.assert_allclose(cell.states[within][:, :units], hs[within], atol=1e-5)
        assert {value.shape for value in cell.gates.values()} == {(4, 22, units)}
        assert cell.points.states.dtype == np.float64
        assert cell.points.is_fixed.any()
        np.testing.assert_array_less(cell.points.speeds[cell.points.is_fixed], 1e-12)
        np.testing.assert_allclose(cell.axes @ cell.axes.T, np.eye(3), atol=1e-6)
        assert 0.5 < cell.axis_shares.sum() <= 1.0 + 1e-9
    table = inspection.points
    assert table["cell"].unique(maintain_order=True).to_list() == ["layer_0", "layer_1"]
    assert len(table) == sum(len(cell.points.states) for cell in inspection.cells.values())


def test_what_states_hold_and_how_alike_they_are(inspection):
    assert list(inspection.probes["layer_1"].scores) == ["XX", "XY", "YX", "YY"]
    assert len(inspection.probes["layer_1"].scores["XY"]) == 22
    names, matrices = inspection.similarity
    assert names == ["layer_0", "layer_1", "untrained layer_0", "untrained layer_1", "run layer_0", "run layer_1"]
    for matrix in matrices.values():
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
        np.testing.assert_allclose(matrix[[0, 1, 0, 1], [0, 1, 4, 5]], 1.0, atol=1e-4)  # the same run
        assert matrix[0, 1] < 0.999


@pytest.fixture(scope="module")
def written(inspection, tmp_path_factory):
    return inspection.write(tmp_path_factory.mktemp("page") / "deep" / "inside.html")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_in_a_browser(written, tmp_path, dark):
    page, text = tmp_path / "page.html", written.read_text()
    assert not re.search(r'(src|href)="https?:', text)
    assert INK not in text  # texts take the page's colour
    page.write_text(text.replace("</body>", f"{WIDE}</body>"))
    document = drawn(page, flags=["--window-size=1280,2000", f"--blink-settings=preferredColorScheme={int(not dark)}"])
    assert 'data-across="true"' in document
    assert 'data-narrow="true"' in document
    assert f'data-paper="{"rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)"}"' in document
    for section in ("attributions", "traces", "points", "eigenvalues", "probes", "similarity"):
        assert "<svg" in document.split(f'id="{section}"', 1)[1].split("</section>", 1)[0], section
    assert document.count("<figure>") == 1 + 2 * 4 + 1


def test_the_command_prints_what_it_found(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert inspect.command(["--workdir", str(run.path), "--output", str(page), "--input=zeros", "--explain=2"]) == 0
    printed = capsys.readouterr().out
    assert "Integrated gradients add up" in printed
    assert "layer_1: " in printed
    assert f"page: {page}" in printed
    assert "XY" not in page.read_text().split("What units do")[0].split("</h1>")[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--workdir: missing"),
        (["--workdir=nowhere"], "--workdir=nowhere: not a run directory"),
        (["--checkpoint=bset"], "--checkpoint='bset': allowed are best, latest; did you mean 'best'"),
        (["--input=zeroes"], "--input='zeroes': allowed are median, mean, zeros; did you mean 'zeros'"),
        (["--explain=4"], "output number 4: the network has 4; allowed are 0 to 3"),
        (["--explain=-1"], "--explain=-1: a whole number is needed here"),
        (["--against=OTHER"], r"of T, D, O = 8, 2, 1; allowed are runs of 22, 8, 4"),
    ],
)
def test_wrong_use_is_named(run, flags, message, tmp_path, unchecked_types):
    if flags and flags[0] == "--against=OTHER":
        (tmp_path / "other").mkdir()
        RunDir(tmp_path / "other").config.write_text(json.dumps(small().to_dict()))
        flags = [f"--against={tmp_path / 'other'}"]
    if flags and not flags[0].startswith("--workdir"):
        flags = [f"--workdir={run.path}", *flags]
    with pytest.raises(UsageError, match=message):
        inspect.command(flags)


def test_pictures_by_name(inspection, unchecked_types):
    assert inspection.plot("points_layer_1").axes
    message = r"name='point_layer_1': allowed are attributions.*did you mean 'points_layer_1'"
    with pytest.raises(UsageError, match=message):
        inspection.plot("point_layer_1")


def test_the_input_at_rest():
    inputs = np.array([[0.0, 1.0], [0.0, 3.0], [9.0, 5.0]])
    assert resting_input(inputs, "median").tolist() == [0.0, 3.0]
    assert resting_input(inputs, "mean").tolist() == [3.0, 3.0]
    assert resting_input(inputs, "zeros").tolist() == [0.0, 0.0]
