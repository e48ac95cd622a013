"""The page of results: rows from runs and studies, beside what is published."""

import json
import statistics
from pathlib import Path

import pytest

from experiments import ablate, cli, results, train
from gru_jax.errors import UsageError
from gru_jax.runtime.files import read_json
from gru_jax.studies.results import Result, results_page
from gru_jax.tasks import TASKS

pytestmark = pytest.mark.usefixtures("compiled_once")

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {
    "task": {"name": "adding", "length": 5, "valid_size": 8, "test_size": 8},
    "model": {"hidden": (4,)},
    "train": {"steps": 2, "batch_size": 4},
    "flow": {"every": 0},
}


def small_run(path, seed):
    train.run({**SMALL, "seed": seed}, path)
    return path


def test_rows_of_runs_and_of_studies(tmp_path):
    """Seeds become one row with mean and deviation, members of a study one for each value of its other axes."""
    page = tmp_path / "page.md"
    first, second = (small_run(tmp_path / f"run-{seed}", seed) for seed in (0, 1))
    ablate.run({"base": SMALL, "axes": {"optimizer.lr": [0.01, 0.1], "seed": [0, 1]}}, tmp_path / "study")
    rows = results.run([first], page)
    assert [list(row.scores) for row in rows] == [["0"]]
    rows = results.run([second, tmp_path / "study"], page)  # the first stays
    assert sorted((len(row.scores), row.varied.get("optimizer.lr", "")) for row in rows) == [
        (2, ""), (2, "0.01"), (2, "0.1"),
    ]  # fmt: skip
    losses = [read_json(path / "summary.json")["best"]["test"]["loss"] for path in (first, second)]
    (alone,) = (row for row in rows if not row.varied)
    assert alone.test["loss"] == f"{statistics.fmean(losses):.4g} ± {statistics.stdev(losses):.3g}"
    assert alone.label == "adding"
    text = page.read_text()
    assert alone.test["loss"] in text
    assert str(tmp_path) not in text
    results.run([], page)
    assert page.read_text() == text


@pytest.mark.slow
def test_folds_are_one_row(tmp_path, data_dir, undrawn):
    """Of a study over them, and of a run on one of them: with mean and deviation, as over seeds."""
    base = {**SMALL, "task": {"name": "rt_polarity", "length": 6}}
    ablate.run({"base": base, "axes": {"task.test_fold": [0, 3]}}, tmp_path / "study")
    train.run({**base, "task": {**base["task"], "test_fold": 1}}, tmp_path / "run")
    (row,) = results.run([tmp_path / "study", tmp_path / "run"], tmp_path / "page.md")
    assert list(row.scores) == ["0/0", "0/1", "0/3"]
    assert row.varied == {}


def test_a_score_that_was_not_finite_is_said():
    row = Result("a0", "x", "c", {}, {}, "loss", {"0": {"loss": None}, "1": {"loss": 1.0}}, {}, 10, 1.0, "cpu")
    assert row.test == {"loss": "not finite in 1 of 2"}
    assert "loss not finite" in results_page([row], [])


def test_scores_that_some_runs_do_not_have():
    row = Result("a0", "x", "c", {}, {}, "loss", {"0": {"loss": 1.0, "bleu": 20.0}, "1": {"loss": 2.0}}, {}, 10, 1.0,
                 "cpu")  # fmt: skip
    assert row.test == {"loss": "1.5 ± 0.707", "bleu": "20 (1 of 2)"}


def test_members_that_diverged_or_were_halved(tmp_path):
    """A network from before the divergence is no result, nor is one that was not trained to the end."""
    ablate.run({"base": SMALL, "axes": {"optimizer.lr": [0.01, 1e30], "seed": [0, 1]}}, tmp_path / "study")
    rows = {
        row.varied["optimizer.lr"]: row.test["loss"] for row in results.run([tmp_path / "study"], tmp_path / "page.md")
    }
    assert "±" in rows["0.01"]
    assert rows["1e+30"] == "not finite in 2 of 2"
    for summary in tmp_path.glob("study/members/*/summary.json"):
        ended = json.loads(summary.read_text())
        if ended["end_reason"] == "diverged":
            summary.write_text(json.dumps({**ended, "end_reason": "halved"}))
    assert [row.varied["optimizer.lr"] for row in results.run([tmp_path / "study"], tmp_path / "b.md")] == ["0.01"]
    done = [path for path in tmp_path.glob("study/members/*/summary.json") if '"halved"' not in path.read_text()]
    done[0].write_text(json.dumps({**json.loads(done[0].read_text()), "end_reason": "halved"}))
    (row,) = results.run([tmp_path / "study"], tmp_path / "c.md")
    assert (len(row.scores), row.halved) == (1, 1)
    assert "| 1, 1 more halved |" in (tmp_path / "c.md").read_text()


def test_what_is_published_stands_beside_the_row_it_is_of():
    task = {"name": "music", "collection": "jsb"}
    row = Result("a0", "jsb", "c", task, {}, "loss", {"0": {"loss": 9.0}}, {}, 10, 1.0, "cpu")
    entry = {"metric": "loss", "value": 8.43, "network": "GRU", "source": "Someone 2018", "url": "https://a.b"}
    fits, other = ({"task": {"name": "music", "collection": name}, **entry} for name in ("jsb", "nottingham"))
    assert "loss 8.43 (GRU; Someone 2018)" in results_page([row], [fits]).split("## Commands")[0]
    assert "8.43" not in results_page([row], [other])


def test_commands_say_nothing_of_a_machine():
    words = ["/a/experiments/ablate.py", "--config", "/b/c.py:x", "--workdir", "/tmp/a", "--axis.seed=0..2"]
    words += ["--config.model.hidden=8", "--config.seed=3", "--config.devices=1", "--config.task.data_dir=/data"]
    told = results.tell_command("adding", words)
    assert told == (
        "c:x model.hidden=8",
        "python -m experiments.ablate --config c.py:x --axis.seed=0..2 --config.model.hidden=8",
    )


def test_wrong_use_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        results.command([str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="not done yet, or no run's directory"):
        results.run([tmp_path], tmp_path / "page.md")
    (tmp_path / "page.json").write_text(json.dumps({"results": [{"command": "c"}]}))
    with pytest.raises(UsageError, match=r"page\.json: damaged"):
        results.run([], tmp_path / "page.md")
    (tmp_path / "published.json").write_text("{}")
    (tmp_path / "page.json").unlink()
    with pytest.raises(UsageError, match=r"published\.json: has no list 'published'"):
        results.run([], tmp_path / "page.md")
    assert cli.parse_directories([str(tmp_path), "--output=x"], ("output",)) == ([str(tmp_path)], {"output": "x"})


def test_the_page_of_the_docs_is_that_of_its_rows():
    rows = [Result(**row) for row in read_json(DOCS / "results.json")["results"]]
    published = read_json(DOCS / "published.json")["published"]
    assert (DOCS / "results.md").read_text() == results_page(rows, published)
    assert {entry["task"]["name"] for entry in published} <= set(TASKS)
