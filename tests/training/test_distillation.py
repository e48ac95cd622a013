"""A network that learns from another one's outputs."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from experiments import ablate, compress, train
from gru_jax.config import load, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.teacher import teacher_of
from gru_jax.studies.study import load_study
from gru_jax.tasks import Batch
from gru_jax.training.distillation import Teacher, distillation_loss
from gru_jax.training.network import build_model
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.small import small, timeless
from tests.training.test_resume import same_run

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")
ORDER = {"name": "temporal_order", "length": 20, "valid_size": 20, "test_size": 20}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        return train.run(small(task=ORDER, model={"hidden": (6,)}, flow={"every": 0}), path)


def student(teacher, **changes):
    """A config of a network of four units that learns from it."""
    taught = {"teacher": str(teacher.path), **changes.pop("distillation", {})}
    return small(**{"task": ORDER, "model": {"hidden": (4,)}, "flow": {"every": 0}, **changes}, distillation=taught)


def test_the_loss_of_classes_is_the_divergence_of_softened_probabilities():
    """In float64 by hand, and its gradient is t times the difference of probabilities (Hinton et al., eq. 2)."""
    rng = np.random.default_rng(0)
    outputs, taught = rng.normal(size=(2, 5, 3)).astype(np.float32)
    batch, t = Batch(jnp.ones((5, 2, 1)), jnp.zeros(5, jnp.int32)), 3.0

    def probabilities(scores):
        shares = np.exp(scores.astype(np.float64) / t)
        return shares / shares.sum(axis=-1, keepdims=True)

    p, q = probabilities(taught), probabilities(outputs)
    values = distillation_loss(jnp.asarray(outputs), jnp.asarray(taught), batch, t)
    np.testing.assert_allclose(values, t**2 * (p * np.log(p / q)).sum(axis=-1), rtol=1e-4)
    slopes = jax.grad(lambda o: distillation_loss(o, jnp.asarray(taught), batch, t).sum())(jnp.asarray(outputs))
    np.testing.assert_allclose(slopes, t * (q - p), atol=1e-5)


def test_of_numbers_it_is_the_squared_difference_and_steps_count_by_their_mask():
    outputs = jnp.arange(12.0).reshape(2, 3, 2)
    numbers = Batch(jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 2)))
    np.testing.assert_allclose(distillation_loss(outputs, outputs + 2.0, numbers, 7.0), 4.0)
    mask = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    taught = outputs.at[:, 2].add(100.0).at[0, 1].add(1.0)
    np.testing.assert_allclose(distillation_loss(outputs, taught, numbers._replace(mask=mask), 7.0), [0.5, 0.0])


def test_a_step_follows_the_weighted_sum(teacher):
    """Against a gradient of the two losses by hand; the metrics say both."""
    config = student(
        teacher,
        distillation={"weight": 0.3, "temperature": 4.0},
        optimizer={"name": "sgd", "lr": 0.5, "clip_norm": None},
    )
    trainer, values = Trainer(config, teacher=teacher_of(config)), traced_hyperparameters(config)
    state, index = trainer.init(0, values), jnp.arange(8, dtype=jnp.int32)
    batch, model = trainer.batch(0, {}, index), build_model(config)
    taught = teacher.model(batch.xs, lengths=batch.lengths)

    def loss(params):
        outputs = model.apply(params, batch.xs, lengths=batch.lengths).outputs
        said = jax.nn.log_softmax(outputs)
        own = -jnp.take_along_axis(said, batch.targets[:, None], axis=1).mean()
        softened = jax.nn.softmax(taught / 4.0)
        other = 16.0 * (softened * (jnp.log(softened) - jax.nn.log_softmax(outputs / 4.0))).sum(axis=-1).mean()
        return 0.7 * own + 0.3 * other, (own, other)

    grads, (own, other) = jax.grad(loss, has_aux=True)(state.params)
    new, report, finite = jax.jit(trainer.step)(state, 0, values, {}, index)
    assert bool(finite)
    np.testing.assert_allclose(report.metrics["loss"], own, rtol=1e-5)
    np.testing.assert_allclose(report.metrics["distillation"], other, rtol=1e-4)
    wanted = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.params, wanted)


@pytest.mark.slow
def test_of_a_teacher_like_itself_there_is_nothing_to_learn(teacher):
    config = student(teacher, model={"hidden": (6,)}, distillation={"weight": 1.0})
    trainer, values = Trainer(config, teacher=teacher_of(config)), traced_hyperparameters(config)
    state = trainer.init(0, values)._replace(params=jax.tree.map(jnp.asarray, teacher.params))
    _, report, _ = jax.jit(trainer.step)(state, 0, values, {}, jnp.arange(8, dtype=jnp.int32))
    assert float(report.metrics["grad_norm"]) < 1e-5
    assert float(report.metrics["distillation"]) < 1e-6


@pytest.mark.slow
def test_with_weight_zero_it_is_the_student_alone(teacher, tmp_path):
    """To the bit, by the same program; another weight or temperature compiles nothing new."""
    alone, zero = (
        small(task=ORDER, model={"hidden": (4,)}, flow={"every": 0}),
        student(teacher, distillation={"weight": 0.0}),
    )
    programs = [
        training_program(student(teacher, distillation=numbers))
        for numbers in ({"weight": 0.2}, {"weight": 0.9, "temperature": 5.0})
    ]
    assert programs[0] == programs[1] != training_program(zero)
    runs = [train.run(config, tmp_path / name) for name, config in (("alone", alone), ("zero", zero))]
    assert timeless(runs[0].path) == timeless(runs[1].path)
    assert not zero.distillation.is_on
    assert load(zero.to_dict()) == zero


@pytest.mark.slow
def test_it_resumes_to_the_bit(teacher, tmp_path, monkeypatch):
    config = student(teacher)
    whole = train.run(config, tmp_path / "whole")
    assert "distillation" in next(line for line in timeless(whole.path) if line["split"] == "train")
    with struck(monkeypatch, Checkpoints, "save", 2) as calls:
        train.run(config, tmp_path / "parts")
    assert len(calls) == 2
    train.run(config, tmp_path / "parts")
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_distil_is_a_run_of_its_own_beside_the_teacher(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("gru_jax.runs.latency.TURNS", 1)
    flags = ["--workdir", str(teacher.path), "--method", "distil", "--output", str(tmp_path / "new")]
    assert compress.command([*flags, "--steps", "4", "--weight", "0.25", "--temperature", "3"]) == 0
    run = gru_jax.open(tmp_path / "new")
    assert run.config.model.hidden == (3,)
    assert dataclasses.astuple(run.config.distillation) == (f"{teacher.path}:best", 0.25, 3.0)
    assert run.config.train.init_from is None
    assert run.summary["steps"] == 4


@pytest.mark.slow
def test_members_learn_with_weights_of_their_own(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.report.run", lambda path: None)
    study = load_study({"base": student(teacher).to_dict(), "axes": {"distillation.weight": [0.2, 0.9]}})
    ablate.run(study, tmp_path / "study")
    alone = train.run(student(teacher, distillation={"weight": 0.9}), tmp_path / "alone")
    member = next(m for m in study.members() if m.config.distillation.weight == 0.9)
    lines = timeless(tmp_path / "study" / "members" / member.id)
    assert [line["loss"] for line in lines] == [line["loss"] for line in timeless(alone.path)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "nowhere"}, r"distillation\.teacher=nowhere: workdir=nowhere: not a run directory"),
        ({"teacher": None, "weight": 0.2}, r"distillation\.weight=0\.2: without effect; distillation\.teacher says"),
        ({"weight": 1.5}, r"distillation\.weight=1\.5: allowed are"),
    ],
)
def test_wrong_use_is_one_line(changes, message, teacher, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        train.run(student(teacher, distillation=changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_task_and_none_at_all(teacher, tmp_path):
    config = small(distillation={"teacher": str(teacher.path)})
    with pytest.raises(UsageError, match=r"its network differs in inputs: 8, needed is 2"):
        train.run(config, tmp_path / "run")
    wide = student(teacher, dtype="float64")
    with pytest.raises(UsageError, match=r"its network differs in double precision: False, needed is True"):
        train.run(wide, tmp_path / "run")
    distils = student(teacher)
    trainer, values = Trainer(distils), traced_hyperparameters(distils)
    with pytest.raises(UsageError, match=r"distillation\.teacher=.*: its network is needed here"):
        trainer.step(trainer.init(0, values), 0, values, {}, jnp.arange(8, dtype=jnp.int32))
    assert isinstance(teacher_of(distils), Teacher)
    assert teacher_of(student(teacher, distillation={"weight": 0.0})) is None
