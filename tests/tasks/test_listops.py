"""ListOps: what expressions come to by another evaluator, the grammar they are drawn of, files, and a network."""

from __future__ import annotations

import itertools
import random
import re

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from experiments import predict, train
from gru_jax.config import load
from gru_jax.data.files import data_root
from gru_jax.data.listops import (
    END,
    OPERATORS,
    TOKENS,
    draw_expression,
    draw_expressions,
    load_expressions,
    parse_expression,
    with_brackets,
)
from gru_jax.errors import UsageError
from gru_jax.runtime.files import sha256_of
from gru_jax.tasks import ListOps
from gru_jax.tasks import listops as module

PUBLISHED = data_root(None) / "listops" / "test_d20s.tsv"
needs_file = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published file is not there")

FUNCTIONS = {"MAX": np.max, "MIN": np.min, "MED": lambda v: int(np.median(v)), "SM": lambda v: int(np.sum(v)) % 10}
trees = st.recursive(
    st.integers(0, 9),
    lambda inner: st.tuples(st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, min_size=1)),
    max_leaves=20,
)


def written(tree):
    """An expression as text."""
    return str(tree) if isinstance(tree, int) else f"[{tree[0]} {' '.join(map(written, tree[1]))} ]"


def paired(tree):
    """An expression as text of its binary tree: pairs of what was read and the next argument."""
    if isinstance(tree, int):
        return str(tree)
    text = f"[{tree[0]}"
    for part in (*map(paired, tree[1]), "]"):
        text = f"( {text} {part} )"
    return text


def value(tree):
    return tree if isinstance(tree, int) else int(FUNCTIONS[tree[0]]([value(part) for part in tree[1]]))


def reduced(text):
    """What an expression comes to, its innermost operations replaced by their values until none is left."""
    operation = re.compile(r"\[(\w+)((?: \d)+) \]")
    while text.startswith("["):
        text = operation.sub(lambda match: str(int(FUNCTIONS[match[1]](list(map(int, match[2].split()))))), text)
    return int(text)


def text_of(tokens):
    return " ".join(TOKENS[number] for number in tokens)


@given(trees)
def test_values_and_brackets_are_those_of_the_tree(tree):
    plain, bracketed = (parse_expression(text) for text in (written(tree), paired(tree)))
    assert plain == bracketed
    assert plain.value == value(tree)
    assert text_of(plain.tokens) == written(tree)
    assert text_of(with_brackets(plain.tokens)) == paired(tree)
    assert len(with_brackets(plain.tokens)) == 3 * len(plain.tokens) - 2


@given(st.integers(0, 2**31 - 1), st.integers(1, 200))
def test_drawn_expressions_come_to_what_they_say(seed, longest):
    drawn = draw_expression(random.Random(seed).random, longest)
    if drawn is None:
        assert len(draw_expression(random.Random(seed).random, 10**6).tokens) > longest
    else:
        assert len(drawn.tokens) <= longest
        assert reduced(text_of(drawn.tokens)) == drawn.value
        assert parse_expression(text_of(drawn.tokens)) == drawn


def counts_of(expressions):
    """How many arguments there are, which operators, how many arguments are operations, and the greatest depth."""
    arguments, operators, nested, deepest = np.zeros(6, int), np.zeros(4, int), np.zeros(2, int), 0
    for expression in expressions:
        open_operations = []
        for token in expression.tokens:
            if token == END:
                arguments[open_operations.pop()] += 1
                continue
            if open_operations:
                open_operations[-1] += 1
            depth = len(open_operations) + 1
            deepest = max(deepest, depth)
            if 3 <= depth < 20:  # the least are drawn more often, and left out the second time
                nested[int(token >= 10)] += 1
            if token >= 10:
                operators[token - 10] += 1
                open_operations.append(0)
    return arguments, operators, nested, deepest


def check_grammar(expressions):
    arguments, operators, nested, deepest = counts_of(expressions)
    assert not arguments[:2].any()
    shares = [arguments[2:] / arguments.sum(), operators / operators.sum(), [nested[1] / nested.sum()]]
    for share, count in zip(np.concatenate(shares), [arguments.sum()] * 8 + [nested.sum()], strict=True):
        assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / count) + 0.015, shares
    assert deepest == 20


def test_the_grammar_is_the_published_one():
    check_grammar(draw_expressions(3000, 1, 2, 10**4))


@needs_file
def test_the_published_expressions_are_of_this_grammar_and_come_to_what_they_say():
    published = load_expressions(PUBLISHED)
    check_grammar(published)
    assert len(published) == len({expression.tokens for expression in published}) == 10_000
    for expression in published[::17]:
        assert reduced(text_of(expression.tokens)) == expression.value
    rows = PUBLISHED.read_text().splitlines()[::11]
    assert [text_of(with_brackets(parse_expression(row[2:]).tokens)) for row in rows] == [row[2:] for row in rows]


def test_drawing_is_of_the_seed_and_never_twice_the_same():
    drawn = draw_expressions(200, 3, 4, 40)
    assert drawn == draw_expressions(200, 3, 4, 40)
    assert len({expression.tokens for expression in drawn}) == 200
    assert {expression.tokens for expression in draw_expressions(200, 4, 4, 40)} != {e.tokens for e in drawn}
    left_out = {expression.tokens for expression in drawn}
    assert not left_out & {expression.tokens for expression in draw_expressions(200, 3, 4, 40, left_out)}
    with pytest.raises(
        UsageError, match=r"of 100,000 expressions that were drawn 10 are of 1 to 1 tokens.*needed are 11"
    ):
        draw_expressions(11, 0, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expression: empty"),
        ("[MAXX 1 2 ]", r"token 1 is '\[MAXX'; allowed are .*; did you mean '\[MAX'"),
        ("[MAX 1 12 ]", "token 3 is '12'; allowed"),
        ("[MAX 1 [MIN 2 3 ]", "ends within an operation"),
        ("[MAX 1 2 ] 3", "goes on after its end, with '3'"),
        ("1 ]", "goes on after its end, with ']'"),
        ("]", "] ends an operation that was not begun, as token 1"),
        ("[MAX [SM ] 2 ]", "] ends an operation without arguments, as token 3"),
        ("( [MAX 1 2 ] )", "its round brackets are not those of its binary tree"),
        ("( ( ( [MAX 1 ) 2 ) ]", "its round brackets are not those"),
    ],
)
def test_what_is_no_expression(text, message):
    with pytest.raises(UsageError, match=message if "\\" in message else re.escape(message).replace(r"\.\*", ".*")):
        parse_expression(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[MAX 1 2 ]", r"line 2: begins with '\[MAX 1 2 \]'; needed are a digit, a tab"),
        ("10\t[MAX 1 2 ]", "line 2: begins with"),
        ("", "line 2: begins with ''"),
        ("3\t[MAX 1 2 ]", "line 2: says 3; the expression comes to 2"),
        ("2\t[MAX 1 2", "line 2: ends within an operation"),
    ],
)
def test_damaged_files(line, message, tmp_path):
    path = tmp_path / "damaged.tsv"
    path.write_text(f"1\t1\n{line}\n1\t1\n")
    with pytest.raises(UsageError, match=message):
        load_expressions(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data directory with a small file in place of the published one."""
    expressions = draw_expressions(60, 9, 5, 30)
    path = tmp_path / "listops" / "test_d20s.tsv"
    path.parent.mkdir()
    path.write_text("".join(f"{e.value}\t{text_of(with_brackets(e.tokens))}\n" for e in expressions))
    monkeypatch.setattr(module, "LISTOPS_FILE", module.LISTOPS_FILE._replace(sha256=sha256_of(path)))
    return tmp_path


def task_of(folder, **changes):
    return ListOps(**{"data_dir": str(folder), "train_size": 300, "valid_size": 50, "max_length": 30, **changes})


def rows_of(task, split):
    arrays = task.load(split)
    return {tuple(row[:length]) for row, length in zip(arrays["xs"].tolist(), arrays["lengths"], strict=True)}


@pytest.mark.parametrize("brackets", [False, True])
def test_splits_of_generated_expressions(brackets, folder):
    task = task_of(folder, brackets=brackets, min_length=10, max_length=60)
    parts = {split: rows_of(task, split) for split in ("train", "valid", "test")}
    assert [len(rows) for rows in parts.values()][:2] == [300, 50]
    assert len(parts["test"]) == task.size("test") <= 60
    assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
    assert all(10 <= len(row) <= 60 for rows in parts.values() for row in rows)
    assert {max(max(row) for row in rows) for rows in parts.values()} == {task.input_size - 1}
    batch = task.examples(jax.device_put(task.load("test")), jnp.arange(3))
    for row, length, target in zip(
        np.asarray(batch.xs), np.asarray(batch.lengths), batch.targets.tolist(), strict=True
    ):
        assert parse_expression(text_of(row[:length])).value == target
    assert (
        rows_of(task_of(folder, brackets=brackets, min_length=10, max_length=60, draw_seed=1), "train")
        != parts["train"]
    )


def test_splits_of_the_file_alone(folder):
    task = ListOps("file", data_dir=str(folder), max_length=30)
    parts = [rows_of(task, split) for split in ("train", "valid", "test")]
    assert [len(rows) for rows in parts] == [task.size(split) for split in ("train", "valid", "test")] == [48, 6, 6]
    assert len(set.union(*parts)) == 60
    folds = [ListOps("file", data_dir=str(folder), max_length=30, folds=4, fold=fold) for fold in range(4)]
    held_out = [fold.load("valid")["order"].tolist() for fold in folds]
    assert sorted(itertools.chain(*held_out)) == list(range(48))


def test_answers_without_a_network(folder):
    task = task_of(folder)
    constant, by_first = task.baselines.values()
    train_data, test_data = task.load("train"), task.load("test")
    counts = np.bincount(train_data["targets"], minlength=10) + 1
    assert constant["accuracy"] == pytest.approx((test_data["targets"] == counts.argmax()).mean())
    assert constant["loss"] == pytest.approx(-np.log(counts / counts.sum())[test_data["targets"]].mean())
    right = []
    for first, target in zip(test_data["xs"][:, 0], test_data["targets"], strict=True):
        same = train_data["targets"][train_data["xs"][:, 0] == first]
        right.append(target == (np.bincount(same, minlength=10)).argmax())
    assert by_first["accuracy"] == pytest.approx(np.mean(right))
    assert by_first["accuracy"] > constant["accuracy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_length": 31}, "min_length=31: allowed are up to max_length=30"),
        ({"training": "file"}, "train_size=300: without effect with training='file'"),
    ],
)
def test_settings_that_cannot_be(changes, message, folder):
    with pytest.raises(UsageError, match=message):
        task_of(folder, **changes)


def test_lengths_that_no_published_expression_has(folder):
    with pytest.raises(UsageError, match="test has no expression of 40 to 50 tokens"):
        task_of(folder, min_length=40, max_length=50).load("test")


def test_another_file_is_refused(folder):
    path = folder / "listops" / "test_d20s.tsv"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UsageError, match="damaged, its sha256 is"):
        task_of(folder).load("test")


@needs_file
def test_the_published_test_set():
    counts = np.array([len(line.split()) - 1 for line in PUBLISHED.read_text().splitlines()])
    assert ListOps(max_length=939).size("test") == 10_000
    assert (
        ListOps(max_length=2000, min_length=500, brackets=True).size("test")
        == ((counts >= 500) & (counts <= 2000)).sum()
    )
    task = ListOps("file", max_length=939)
    assert [task.size(split) for split in ("train", "valid", "test")] == [8000, 1000, 1000]
    assert task.baseline["accuracy"] < 0.15


def test_a_run_and_its_predictions(folder, tmp_path, compiled_once):
    config = load(
        {
            "task": {"name": "listops", "data_dir": str(folder), "train_size": 200, "valid_size": 20, "max_length": 30},
            "model": {"hidden": (4,), "embedding": 3},
            "train": {"batch_size": 10, "steps": 4, "eval_steps": 4, "batch_by_length": True},
            "flow": {"every": 0},
            "devices": 1,
        }
    )
    run = train.run(config, tmp_path / "run")
    assert set(run.summary["baselines"]) == {"memoryless or chance", "training shares by the first token"}
    new = tmp_path / "new.txt"
    new.write_text(
        "[MAX 1 2 ]\n( ( ( [SM 6 ) 5 ) ] )\n[MED 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 ]\n"
    )
    (folder / "listops" / "test_d20s.tsv").unlink()  # which is of no use any more
    predicted = predict.run(run, new)
    assert predicted.outputs.shape == (3, 10)
    assert predicted.table.columns[:3] == ["sequence", "prediction", "p(0)"]
    with pytest.raises(UsageError, match="reads expressions, one a line of a text file"):
        run.predict(np.zeros((1, 5, 1)))
    new.write_text("[MAX 1 2 ]\n[MAX 1 x ]\n")
    with pytest.raises(UsageError, match=r"new\.txt: line 2: token 3 is 'x'"):
        predict.run(run, new)


def test_tokens_are_seventeen():
    assert len(TOKENS) == 17
    assert TOKENS[10:14] == OPERATORS
