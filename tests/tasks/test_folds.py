"""Folds: each example in one, classes in proportion, groups whole."""

from __future__ import annotations

import dataclasses
import shutil
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.config import training_program
from gru_jax.data.division import HELD_OUT_SEED, fold_numbers, fold_sizes
from gru_jax.errors import UsageError
from gru_jax.tasks import MNIST, Arrays
from gru_jax.tasks.facts import DataFacts, stored_facts
from tests.training.small import small

LABELS = st.lists(st.integers(0, 4), min_size=8, max_size=60).map(np.array)
FOLDS, SEEDS = st.integers(2, 8), st.integers(0, 3)


@hypothesis.given(LABELS, FOLDS, SEEDS)
def test_stratified_folds_have_the_same_share_of_each_class(classes, folds, seed):
    numbers = fold_numbers(len(classes), folds, "stratified", seed, classes=classes)
    counts = np.bincount(numbers, minlength=folds)
    assert numbers.min() >= 0
    assert tuple(counts) == fold_sizes(len(classes), folds, "stratified")
    for label in np.unique(classes):
        of_class = np.bincount(numbers[classes == label], minlength=folds)
        assert (np.abs(of_class - np.sum(classes == label) / folds) < 1).all()


@hypothesis.given(LABELS, FOLDS, SEEDS)
def test_groups_are_in_one_fold_each(groups, folds, seed):
    count, sizes = len(np.unique(groups)), np.unique(groups, return_counts=True)[1]
    if count < folds:
        with pytest.raises(UsageError, match=f"folds={folds}: there are {count} groups; needed are as many, or more"):
            fold_numbers(len(groups), folds, "group", seed, groups=groups)
        return
    numbers = fold_numbers(len(groups), folds, "group", seed, groups=groups)
    assert all(len(np.unique(numbers[groups == group])) == 1 for group in np.unique(groups))
    rows = np.bincount(numbers, minlength=folds)
    assert rows.min() > 0
    assert rows.max() - rows.min() <= sizes.max()
    assert fold_sizes(len(groups), folds, "group") is None


@hypothesis.given(st.integers(8, 60), FOLDS, SEEDS)
def test_folds_by_chance_are_those_of_before_and_of_one_size(count, folds, seed):
    numbers = fold_numbers(count, folds, "random", seed)
    order = np.random.default_rng(seed).permutation(count)
    for fold in range(folds):
        held_out = order[fold * (count // folds) : (fold + 1) * (count // folds)]
        np.testing.assert_array_equal(np.flatnonzero(numbers == fold), np.sort(held_out))
    assert np.sum(numbers == -1) == count % folds
    in_time = fold_numbers(count, folds, "time", seed)
    assert (np.diff(in_time) >= 0).all()
    assert tuple(np.bincount(in_time)) == fold_sizes(count, folds, "time")


@hypothesis.given(LABELS, FOLDS, SEEDS)
def test_they_promise_what_scikit_learn_does(labels, folds, seed):
    selection = pytest.importorskip("sklearn.model_selection")
    kinds, sizes = np.unique(labels, return_counts=True)
    hypothesis.assume(sizes.max() >= folds and len(kinds) >= 2)
    cases = {"stratified": selection.StratifiedKFold(folds, shuffle=True, random_state=seed)}
    if len(kinds) >= folds:
        cases["group"] = selection.GroupKFold(folds)
    for by, peer in cases.items():
        ours = fold_numbers(len(labels), folds, by, seed, classes=labels, groups=labels)
        theirs = np.empty_like(ours)
        with warnings.catch_warnings():  # of classes that have fewer members than there are folds
            warnings.simplefilter("ignore", UserWarning)
            for fold, (_, held_out) in enumerate(peer.split(labels, labels, labels)):
                theirs[held_out] = fold
        assert sorted(np.bincount(ours)) == sorted(np.bincount(theirs))
        for label in kinds if by == "stratified" else ():
            counts = (np.bincount(numbers[labels == label], minlength=folds) for numbers in (ours, theirs))
            assert len({tuple(sorted(of_each)) for of_each in counts}) == 1


COUNT = 22
XS = np.arange(COUNT, dtype=np.float32)[:, None, None] * np.ones((1, 3, 1), np.float32)
CLASSES, GROUPS = (np.arange(COUNT) % 11 == 0).astype(int), np.sort(np.arange(COUNT) % 5)


def tasks_of(folder, by, folds=3, targets=CLASSES, **settings):
    train = {"xs": XS, "targets": targets, "groups": GROUPS}
    test = {"xs": XS[:4], "targets": targets[:4]}
    task = Arrays.write(folder / "mine", train=train, test=test, folds=folds, divide_by=by, **settings)
    return [dataclasses.replace(task, fold=fold) for fold in range(folds)]


@pytest.mark.parametrize("by", ["stratified", "group", "time"])
def test_every_example_is_validated_on_once(by, tmp_path):
    seen = []
    for task in tasks_of(tmp_path, by):
        rows = {split: task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(task.size(split)))
                for split in ("train", "valid")}  # fmt: skip
        train, valid = (np.asarray(rows[split].xs[:, 0, 0]).astype(int) for split in ("train", "valid"))
        assert sorted([*train, *valid]) == list(range(COUNT))
        if by == "group":
            assert not set(GROUPS[train]) & set(GROUPS[valid])
        if by == "stratified":
            assert CLASSES[valid].sum() in (0, 1)
        seen += valid.tolist()
        streamed = task.rows("valid")["xs"].take(np.arange(task.size("valid")))[:, 0, 0]
        np.testing.assert_array_equal(streamed, valid)
    assert sorted(seen) == list(range(COUNT))


def test_what_is_held_out_for_the_test_is_in_no_fold(tmp_path):
    train = {"xs": XS, "targets": CLASSES, "groups": GROUPS}
    task = Arrays.write(tmp_path / "mine", train=train, folds=2, divide_by="group", test_fraction=0.2)
    test, valid = ({int(x) for x in task.load("test")["xs"][:, 0, 0]}, [])
    for fold in range(2):
        one = dataclasses.replace(task, fold=fold)
        valid += one.load("valid")["xs"][one.order("valid"), 0, 0].astype(int).tolist()
    assert sorted([*test, *valid]) == list(range(COUNT))
    assert not {GROUPS[i] for i in test} & {GROUPS[i] for i in valid}


@pytest.mark.parametrize("by", ["stratified", "group", "time", "random"])
def test_a_run_knows_the_sizes_of_its_folds_without_its_data(by, tmp_path):
    tasks = tasks_of(tmp_path, by)
    facts, sizes = tasks[0].facts, [(task.size("train"), task.size("valid")) for task in tasks]
    assert [len(task.order("valid")) for task in tasks] == [valid for _, valid in sizes]
    shutil.rmtree(tmp_path / "mine")
    with stored_facts(DataFacts.from_json(facts.to_json())):
        kept = [dataclasses.replace(task) for task in tasks]
    assert [(task.size("train"), task.size("valid")) for task in kept] == sizes


def test_facts_of_earlier_versions_are_read():
    before = DataFacts(3, ("x0",), False, (), (), ("target",), {"train": 4})
    content = {k: v for k, v in before.to_json().items() if k not in ("fold_sizes", "unlabelled")}
    assert DataFacts.from_json(content) == before


def test_folds_of_other_sizes_are_other_programs(tmp_path):
    tasks, config = tasks_of(tmp_path, "group"), small(train={"batch_size": 4})
    sizes = [task.size("valid") for task in tasks]
    model = dataclasses.replace(config.model, readout="last")
    programs = [training_program(dataclasses.replace(config, task=task, model=model)) for task in tasks]
    assert len(set(programs)) == len(set(sizes)) == 3


@dataclasses.dataclass(frozen=True)
class Digits(MNIST):
    """Labels without files."""

    def count(self, split):
        return 23 if split == "train" else 5

    def _labels(self, split):
        return np.arange(self.count(split), dtype=np.int32) % 3


def test_images_are_divided_by_their_class():
    tasks = [Digits(folds=4, fold=fold, divide_by="stratified") for fold in range(4)]
    assert [task.size("valid") for task in tasks] == [6, 6, 6, 5]
    for task in tasks:
        assert set(np.bincount(task._labels("train")[task.order("valid")])) <= {1, 2}
    with pytest.raises(UsageError, match="divide_by=group: needed is groups of sequences, and there is none"):
        Digits(folds=4, divide_by="group").size("valid")


def test_labels_of_images_are_read(data_dir):
    task = MNIST(data_dir=str(data_dir), folds=5, fold=2, divide_by="stratified")
    labels = task._labels("train")
    shares = np.bincount(labels[task.order("valid")]) - np.bincount(labels) / 5
    assert (np.abs(shares) < 1).all()
    assert task.size("valid") == 11_000


def test_divisions_that_cannot_be_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"divide_by=stratified: without effect; needed are task\.folds"):
        MNIST(divide_by="stratified")
    with pytest.raises(UsageError, match="divide_by=stratified: needed is a class for each sequence"):
        tasks_of(tmp_path / "numbers", "stratified", targets=XS[:, 0])[0].order("valid")
    with pytest.raises(UsageError, match="folds=6: there are 5 groups"):
        tasks_of(tmp_path / "few", "group", folds=6)
    assert fold_numbers(4, 2, "time", HELD_OUT_SEED).tolist() == [0, 0, 1, 1]
