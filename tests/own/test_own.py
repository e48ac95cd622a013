"""Classes and functions of a user's own are trained, resumed, looked at, ablated and reported as the product's are."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest

import gru_jax
from experiments import ablate, evaluate, flow, report, train
from gru_jax.cells import Cell, LayerNormGRU, Memory
from gru_jax.config import Config, FlowConfig, OptimizerConfig, TrainConfig, load, load_config, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.single import SingleRun
from gru_jax.studies.directory import MEMBERS
from gru_jax.studies.study import load_study
from gru_jax.tasks import Arrays, Generated
from gru_jax.training.population import TRAIN, CompiledPopulation
from gru_jax.user_code import import_file, reference
from tests.own import mine
from tests.programs import compiled_once
from tests.training.killing import struck
from tests.training.small import small
from tests.training.test_resume import same_run

pytestmark = pytest.mark.usefixtures("compiled_once")

FILE = Path(__file__).with_name("mine.py")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The user's file, somewhere of its own."""
    return shutil.copy(FILE, tmp_path_factory.mktemp("user") / "mine.py")


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A run of it from the command line."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with compiled_once():
        assert train.command(["--config", str(file), "--workdir", str(path)]) == 0
    return path


def test_the_config_names_file_class_and_source(run):
    config = json.loads((run / "config.json").read_text())
    assert config["task"] == {
        "name": "mine.py:Parity",
        "valid_size": 20,
        "test_size": 30,
        "length": 6,
        "sharpness": 1.0,
    }
    assert config["model"]["cell"] == {"name": "mine.py:MinimalGatedUnit", "shift": 0.5}
    assert config["model"]["family"] == "mine.py:Doubled"
    assert config["model"]["init"]["recurrent"] == "mine.py:sparse"
    assert config["optimizer"]["name"] == "mine.py:sign_descent"
    assert config["optimizer"]["schedule"] == "mine.py:ramp"
    assert config["flow"]["instruments"][-1] == "mine.py:input_size_of"
    names = ("Parity", "MinimalGatedUnit", "Doubled", "sparse", "sign_descent", "ramp", "input_size_of")
    assert config["sources"].keys() == {f"mine.py:{name}" for name in names}
    assert {len(digest) for digest in config["sources"].values()} == {64}


def test_it_is_evaluated_to_the_same_score(run, file, capsys):
    assert evaluate.command(["--workdir", str(run), "--code", str(file)]) == 0
    assert capsys.readouterr().out.count("(equal to the stored one)") == 2


def test_its_gradient_flow_is_drawn(run, file, tmp_path):
    command = ["--workdir", str(run), "--code", str(file), "--out", str(tmp_path / "flow")]
    assert flow.command([*command, "--instruments", "adjoint,mine.py:input_size_of"]) == 0
    assert (tmp_path / "flow" / "gradient_flow.png").exists()
    assert RunDir(tmp_path / "flow").read_flow()["input/layer_0"][-1] == RunDir(run).read_flow()["input/layer_0"][-1]


def test_killed_it_goes_on_to_the_same_bits(run, file, tmp_path):
    path = tmp_path / "run"
    with struck(pytest.MonkeyPatch(), SingleRun, "_save", 2):
        train.run(load_config(str(file)), path)
    train.run(load_config(str(file)), path)
    same_run(run, path)


def test_python_objects_are_the_same_run(run, tmp_path):
    config = {
        "task": mine.Parity(valid_size=20, test_size=30),
        "model": {
            "family": mine.Doubled,
            "cell": mine.MinimalGatedUnit(shift=0.5),
            "hidden": np.array([4]),
            "init": gru_jax.Scheme(recurrent=mine.sparse),
        },
        "optimizer": OptimizerConfig.section_for(mine.sign_descent)(momentum=0.5, schedule=mine.ramp, lr=0.01),
        "train": {"batch_size": np.int32(8), "steps": jnp.int32(12), "eval_steps": 4, "log_steps": 2, "call_steps": 3},
        "flow": FlowConfig(batch_size=4, instruments=("adjoint", "gates", mine.input_size_of)),
    }
    train.run(config, tmp_path / "run")
    same_run(run, tmp_path / "run")


@pytest.mark.slow
def test_an_ablation_over_its_own_numbers_is_one_program(file, tmp_path, monkeypatch):
    compiled, original = [], CompiledPopulation.compile

    def counting(self, name, rows, *arguments):
        if name == TRAIN and rows not in self.compiled_rows():
            compiled.append(rows)
        return original(self, name, rows, *arguments)

    monkeypatch.setattr(CompiledPopulation, "compile", counting)
    axes = {"task.sharpness": "0.5,2", "optimizer.momentum": "0.1,0.5"}
    study = ablate.run(load_study(str(file), {}, axes, {}), tmp_path / "study")
    assert len(compiled) == 1
    frame = pl.read_csv(tmp_path / "study" / "table.csv")
    assert frame["status"].to_list() == ["done"] * 4
    assert frame["final_valid_loss"].n_unique() == 4
    assert "mine.py" in study.report.read_text()
    assert report.command([str(tmp_path / "study"), "--code", str(file), "--out", str(tmp_path / "page")]) == 0
    for member in sorted((tmp_path / "study" / MEMBERS).iterdir()):
        config = json.loads((member / "config.json").read_text())
        if config["task"]["sharpness"] == 2.0 and config["optimizer"]["momentum"] == 0.5:
            train.run(load_config(str(file), {"task.sharpness": "2"}), tmp_path / "alone")
            same_run(tmp_path / "alone", member)


STUDY = """
from tests.own.mine import MinimalGatedUnit, sparse
from tests.training.small import small

def get_config():
    axes = {"model.cell.name": ["gru", MinimalGatedUnit], "model.init.recurrent": ["orthogonal", sparse]}
    return {"base": "base.py", "axes": axes}
"""


@pytest.mark.slow
def test_a_changed_source_of_a_study_is_told(file, tmp_path, capsys):
    changed = tmp_path / "mine.py"
    (tmp_path / "base.py").write_text("def get_config():\n    return {'train': {'steps': 2, 'batch_size': 4}}\n")
    for text, seeds in (("", "0..1"), ("# other\n", "0..2"), ("# other\n", "0..2")):
        changed.write_text(Path(file).read_text() + text)
        import_file(changed)
        axes = {"task.name": "mine.py:Parity", "task.valid_size": "8", "task.test_size": "8", "seed": seeds}
        ablate.run(load_study(str(tmp_path / "base.py"), {}, axes, {}), tmp_path / "study")
        told = "are others than 2 of the members were made with; results may differ: mine.py:Parity"
        assert (told in capsys.readouterr().out) == bool(text)


def test_classes_and_functions_are_an_axis(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "base.py").write_text("def get_config():\n    return {'train': {'steps': 2}}\n")
    members = load_study(str(tmp_path / "study.py"), {}, {}, {}).members()
    cells, kernels = ("gru", "tests.own.mine:MinimalGatedUnit"), ("orthogonal", "tests.own.mine:sparse")
    assert [tuple(member.labels.values()) for member in members] == [(c, k) for c in cells for k in kernels]
    assert members[2].config.model.cell == mine.MinimalGatedUnit()


def test_a_changed_source_is_told(run, file, tmp_path, caplog):
    path = shutil.copytree(run, tmp_path / "run")
    (path / "summary.json").unlink()
    changed = tmp_path / "mine.py"
    changed.write_text(Path(file).read_text().replace("density=0.2", "density=0.3"))
    with caplog.at_level(logging.INFO, "gru_jax"):
        train.train_run(load_config(str(changed)), path)
    (told,) = [record.getMessage() for record in caplog.records if "are others than" in record.getMessage()]
    said, _, names = told.partition(": ")
    assert said == "code or weights of your own are others than this run was made with; results may differ"
    assert len(names.split(", ")) == 7  # all that the file defines


def with_a_rate(rate):
    """An argument that nothing is known of."""
    return optax.sgd(rate)


def with_noise(noise: float = 0.1):
    """An argument that every optimiser has."""
    return optax.sgd(noise)


def small_normal():
    """An initialiser that a function returns."""
    return jax.nn.initializers.normal(0.1)


@dataclasses.dataclass(frozen=True)
class Named(mine.Parity):
    """A field called as the key that chooses the class."""

    name: str = "adding"


@pytest.mark.parametrize(
    ("section", "error"),
    [
        ({"task": {"name": "theirs.py:Parity"}}, "code: missing; task.name=theirs.py:Parity is not loaded"),
        ({"task": {"name": mine.MinimalGatedUnit}}, "task.name=.*allowed are adding, .*a subclass of gru_jax.tasks"),
        ({"model": {"cell": mine.Parity()}}, "model.cell=Parity.*a section is needed here"),
        ({"optimizer": optax.sgd(0.1)}, "an optimiser of optax is its function, e.g. {'name': optax.adam"),
        ({"model": {"cell": "lstn"}}, "model.cell.name='lstn': allowed are gru, .*did you mean 'lstm'"),
        ({"optimizer": {"name": with_a_rate}}, "argument rate needs a default, as all but"),
        ({"optimizer": {"name": mine.sign_descent, "speed": 1}}, "optimizer.speed: no such key"),
        ({"model": {"init": {"recurrent": "theirs.py:sparse"}}}, "code: missing.*init.recurrent=theirs.py:sparse"),
        ({"optimizer": {"name": with_noise}}, "its argument noise is called like a key that every optimiser has"),
        ({"optimizer": {"name": optax.adam(0.1)}}, "optimizer.name=.*allowed are adam, .*, or a function"),
        ({"optimizer": {"name": optax.inject_hyperparams(optax.adam)}}, "leads to <function adam"),
        ({"optimizer": {"name": mine.sign_descent, "b1": 0.5}}, "optimizer.b1: no such key"),
        ({"optimizer": {"name": "timeit:timeit"}}, "code: missing; optimizer.name=timeit:timeit is not loaded"),
        ({"optimizer": {"name": "optax:os.system"}}, "code: missing; optimizer.name=optax:os.system"),
        ({"optimizer": {"schedule": "time:sleep"}}, "code: missing; optimizer.schedule=time:sleep"),
        ({"optimizer": {"schedule": lambda steps: lambda count: 1.0}}, "has no name that leads to it"),
        ({"model": {"family": "builtins:len"}}, "code: missing; model.family=builtins:len"),
        ({"model": {"init": {"recurrent": small_normal()}}}, "has no name that leads to it"),
        ({"task": Named()}, "has a field called name"),
        ({"optimizer": {"name": functools.partial(optax.sgd, 0.1)}}, "functools.partial.*: has no name"),
        ({"flow": {"instruments": ("adjoint", "theirs.py:f")}}, "code: missing.*flow.instruments=theirs.py:f"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(section, error):
    with pytest.raises(UsageError, match=error):
        load({"train": {"steps": 1}, **section})


@dataclasses.dataclass(frozen=True)
class Wrong(Cell):
    """A cell with a fault."""

    fault: str = "none"
    input_gates = ("n",)
    recurrent_gates = ("n",)

    def equations(self, dense, carry, u):
        """See the class."""
        n = jnp.tanh(u["m" if self.fault == "input" else "n"] + dense("m" if self.fault == "gate" else "n", carry))
        return {"none": (n, {}), "state": n, "pair": ((n, n), {})}.get(self.fault, (n, {}))


def test_a_cell_has_no_init_of_its_own():
    with pytest.raises(UsageError, match=r"Shifted: defines __init__; a cell is a class under @dataclasses.dataclass"):

        class Shifted(mine.MinimalGatedUnit):
            def __init__(self, shift):
                self.shift = shift


class Gateless(mine.MinimalGatedUnit):
    """Its memory's gate is not returned."""

    memory = Memory("f", -1)

    def equations(self, dense, carry, u):
        """No gates."""
        return super().equations(dense, carry, u)[0], {}


class Scalar(mine.MinimalGatedUnit):
    """A gate for all units together."""

    def equations(self, dense, carry, u):
        """Its mean."""
        return carry, {"f": carry.mean()}


class Spelled(mine.MinimalGatedUnit):
    """A text instead of a tuple."""

    input_gates = "fn"


class Twice(mine.MinimalGatedUnit):
    """A vector of a gate's name."""

    vectors = ("gain", "f")


class Wide(mine.MinimalGatedUnit):
    """A vector of another size."""

    def initial_vector(self, name, key, hidden_size):
        """One number more."""
        return jnp.ones(hidden_size + 1)


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        (Gateless, "Gateless.equations: returns the gates none; memory needs f among them"),
        (Scalar, r"Scalar.equations: gate 'f' is float32\[\]; needed is \[..., H\], a value for each unit"),
        (Spelled, "Spelled.input_gates='fn': a tuple of names is needed"),
        (Twice, "Twice.vectors: f is a name twice"),
        (Wide, r"Wide.initial_vector: gain is \[3\]; needed is \[H\], 2 numbers"),
    ],
)
def test_gates_that_do_not_fit_are_told(cell, error):
    with pytest.raises(UsageError, match=error):
        cell().init(jax.random.key(0), 1, 2)


class Damped(LayerNormGRU):
    """A normalised cell with a vector."""

    vectors = ("damping",)

    def equations(self, dense, carry, u):
        """Less of the state."""
        h, gates = super().equations(dense, carry, u)
        return jax.nn.sigmoid(u["damping"]) * h, gates


def test_normalised_cells_have_vectors_too():
    cell, params = Damped(), Damped().init(jax.random.key(0), 2, 3)
    h, plain = (c.step(p, jnp.ones((4, 3)), jnp.ones((4, 2))) for c, p in (
        (cell, params), (LayerNormGRU(), {group: params[group] for group in params if group != "v"}),
    ))  # fmt: skip
    np.testing.assert_allclose(h, 0.5 * plain, rtol=1e-6)


def test_vectors_of_a_cells_own_learn(run):
    params = gru_jax.open(run, code=FILE).params_at("latest")
    gain = params["stack"]["layer_0"]["weights"]["v"]["gain"]
    assert np.abs(np.asarray(gain) - 1).min() > 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("input", r"Wrong.equations: reads u\['m'\]; allowed are the input_gates and vectors, n"),
        ("gate", "Wrong.equations: dense='m': allowed are n"),
        ("state", r"Wrong.equations: returns float32\[1, 2\]; needed are the next carry and a dict"),
        ("pair", r"Wrong.equations: takes a carry float32\[1, 2\] and returns \(float32\[1, 2\], float32\[1, 2\]\)"),
    ],
)
def test_equations_that_do_not_fit_are_told(fault, error):
    assert Wrong().init(jax.random.key(0), 1, 2)
    with pytest.raises(UsageError, match=error):
        Wrong(fault).init(jax.random.key(0), 1, 2)


def with_learning_rate(learning_rate, b1: float = 0.9):
    """An optimiser that takes the schedule itself."""
    return optax.adam(learning_rate, b1=b1)


def deciding(momentum: float = 0.9):
    """An optimiser that looks at a traced number."""
    return optax.sgd(0.1, momentum=momentum if momentum > 0 else None)


def test_an_optimiser_with_a_learning_rate_is_the_registered_one(tmp_path):
    train.run(small(optimizer={"warmup_steps": 3}), tmp_path / "registered")
    train.run(small(optimizer={"name": with_learning_rate, "warmup_steps": 3}), tmp_path / "own")
    losses = [RunDir(tmp_path / name).read_summary()["final"]["test"]["loss"] for name in ("registered", "own")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_numbers_of_optimisers_are_traced(tmp_path):
    with pytest.raises(UsageError, match="decides by the value of a real number, which is traced"):
        train.run(small(optimizer={"name": deciding}), tmp_path)


@dataclasses.dataclass(frozen=True)
class Counting(mine.Parity):
    """A task that counts by a real number."""

    share: float = 0.5

    def example(self, key):
        """The first bits alone."""
        return mine.Parity(int(self.share * self.length)).example(key)


def test_numbers_of_tasks_are_traced(tmp_path):
    with pytest.raises(
        UsageError, match=r"task: Counting decides or counts by one of its real numbers \(sharpness, sha"
    ):
        train.run({"task": Counting(valid_size=4, test_size=4), "train": {"steps": 1}}, tmp_path)


def test_decay_that_would_do_nothing_is_refused():
    values = {"name": with_learning_rate, "weight_decay": 0.1}
    with pytest.raises(UsageError, match="without effect on an optimiser that takes the learning rate"):
        load({"optimizer": values, "train": {"steps": 1}})
    assert load({"optimizer": {"name": optax.adamw, "weight_decay": 0.1}, "train": {"steps": 1}})


@dataclasses.dataclass(frozen=True)
class Derived(mine.Parity):
    """A number made of a traced one."""

    rate: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "decay", 1.0 / self.rate)

    def metrics(self, outputs, batch):
        """The loss, scaled."""
        return {name: value * self.decay for name, value in super().metrics(outputs, batch).items()}


@dataclasses.dataclass(frozen=True)
class Sized(mine.Parity):
    """A size made of a real number."""

    factor: float = 1.0

    @property
    def time(self):
        """T."""
        return int(self.length * self.factor)

    def example(self, key):
        """Longer ones."""
        return mine.Parity(self.time).example(key)


def test_what_tasks_make_of_their_numbers_is_each_members_own(tmp_path):
    base = {"task": Derived(valid_size=8, test_size=8), "model": {"hidden": 4}, "train": {"batch_size": 8, "steps": 1}}
    losses = ablate.run({"base": base, "axes": {"task.rate": [1.0, 2.0]}}, tmp_path / "study").table["best_test_loss"]
    assert losses[1] == pytest.approx(losses[0] / 2, rel=0.02)
    programs = {training_program(load({"task": Sized(factor=f), "train": {"steps": 1}})) for f in (1.0, 2.0)}
    assert len(programs) == 2


class Summed(mine.Parity):
    """A loss for each pair of examples."""

    def metrics(self, outputs, batch):
        """[B, B]."""
        return {"loss": (outputs - batch.targets.astype(jnp.float32)[None]) ** 2, "accuracy": outputs[:, 0]}


class Lossless(mine.Parity):
    """Nothing to train on."""

    def metrics(self, outputs, batch):
        """No loss."""
        return {"accuracy": outputs[:, 0]}


class Overlong(mine.Parity):
    """Its sequences are longer than it says."""

    time = 9


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (Overlong, r"task: Overlong gives sequences of shape \[6, 1\]; its time and input_size are 9 and 1"),
        (Summed, r"task: Summed.metrics gives loss of shape \[8, 8\]; needed is a number for each example, \[8\]"),
        (Lossless, "task: Lossless.metrics: needed='loss': allowed are accuracy"),
    ],
)
def test_batches_and_losses_of_another_shape_are_refused(task, error, tmp_path):
    values = {"task": task(valid_size=8, test_size=8), "train": {"batch_size": 8, "steps": 1}}
    with pytest.raises(UsageError, match=error):
        train.run(values, tmp_path)


def test_functions_for_single_gates_are_named():
    config = load({"model": {"init": {"gates": {"z": {"recurrent": mine.sparse}}}}, "train": {"steps": 1}})
    assert list(config.to_dict()["sources"]) == ["tests.own.mine:sparse"]


def test_a_file_is_run_once_for_each_of_its_contents(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text("class A:\n    pass\n")
    first = import_file(path)
    assert import_file(path) is first
    path.write_text("class A:\n    size = 1\n")
    assert import_file(path).A.size == 1
    assert reference(import_file(path).A) == "theirs.py:A"
    path.write_text("class A:\n    size = 1 / 0\n")
    with pytest.raises(UsageError, match="line 2: ZeroDivisionError"):
        import_file(path)
    assert gru_jax.user_code.find("theirs.py:A").size == 1


def test_of_two_files_of_one_name_the_one_that_was_given_counts(tmp_path):
    classes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        path = tmp_path / name / "task.py"
        path.write_text("from tests.own.mine import Parity\nclass Mine(Parity):\n    pass\n")
        classes.append(import_file(path).Mine)
    for cls in classes:
        values = {"task": cls(), "train": {"steps": 1}}
        assert type(load(load(values).to_dict()).task) is cls
        assert type(load({"task": {"name": cls}, "train": {"steps": 1}}).task) is cls
    assert import_file(tmp_path / "a" / "task.py").Mine is classes[0]
    assert type(load({"task": {"name": "task.py:Mine"}, "train": {"steps": 1}}).task) is classes[0]


def test_a_run_directory_never_makes_code_run(tmp_path, run):
    path = shutil.copytree(run, tmp_path / "run")
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('run')\nclass Parity: pass\n")
    config = json.loads((path / "config.json").read_text())
    for name in ("trap.py:Parity", f"{trap}:Parity", "trap:Parity", "antigravity:Parity"):
        config["task"]["name"] = name
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UsageError, match="code: missing"):
            evaluate.run(path)


class Longer(mine.Parity):
    """A subclass as it is."""

    @property
    def time(self):
        """T."""
        return 2 * self.length


def test_own_tasks_need_no_decorator():
    assert load(Config(task=Longer(), train=TrainConfig(steps=1))).model.init.t_max == 12.0
    assert issubclass(Longer, Generated)


def test_a_run_is_an_object(run, file):
    import_file(Path(file))
    opened = gru_jax.open(run)
    assert opened.metrics.filter(split="train")["step"].to_list() == [2, 4, 6, 8, 10, 12]
    flow_table = opened.flow.filter(reading="adjoint/layer_0", step=12)
    assert flow_table["index"].to_list() == list(range(6))  # lags
    np.testing.assert_array_equal(flow_table["value"], opened.records["adjoint/layer_0"][-1])
    xs = jax.random.normal(jax.random.key(0), (3, 6, 1))
    np.testing.assert_allclose(opened.predict(xs), opened.model(xs), rtol=1e-6)
    assert isinstance(opened.model, import_file(Path(file)).Doubled)
    assert opened.params["head"]["kernel"].shape == (4, 1)
    assert opened.plot("gradient_flow").axes
    with pytest.raises(UsageError, match=r"name='learning': .*did you mean 'learning_curve'"):
        opened.plot("learning")
    assert evaluate.run(opened).metrics == opened.summary["best"]["test"]


def test_gradient_flow_in_python(run, file):
    module = import_file(Path(file))
    measured = flow.run(gru_jax.open(run), "best", ["adjoint", module.input_size_of])
    assert set(measured.table["reading"]) == {"adjoint/layer_0", "adjoint_quantiles/layer_0", "input/layer_0"}
    assert measured.plot().axes
    assert flow.run(module.get_config()).step == 0


def test_a_study_in_python(tmp_path, monkeypatch):
    base = Config(task=mine.Parity(valid_size=8, test_size=8), train=TrainConfig(batch_size=8, steps=3))
    axes = {"task.sharpness": np.array([0.5, 1.0]), "optimizer.lr": [1e-3, 1e-2], "seed": range(2)}
    study = ablate.run({"base": base, "axes": axes}, tmp_path / "study")
    assert study.table.height == 8
    assert study.best.config.task.sharpness in (0.5, 1.0)
    assert {line.get_label() for line in study.plot("optimizer.lr", by="task.sharpness").axes[0].lines} >= {
        "0.5",
        "1.0",
    }
    assert len(study.plot("task.sharpness", "best_test_loss").axes[0].lines) == 2
    again = gru_jax.open(tmp_path / "study")
    assert again.table.equals(study.table)
    assert again.report.exists()
    with pytest.raises(UsageError, match="x='lr': allowed are member"):
        study.plot("lr")
    holes = study.table.with_columns(pl.when(pl.col("seed") == 1).then(pl.col("optimizer.lr")).alias("optimizer.lr"))
    monkeypatch.setattr(type(study), "table", holes)  # as of an axis that does not apply to all members
    assert len(study.plot("optimizer.lr").axes[0].lines[0].get_xdata()) == 4


class Unpacking(Wrong):
    """A carry of two parts that it does not announce."""

    def equations(self, dense, carry, u):
        """See the class."""
        h, c = carry
        return (h, c), {}


class Upward(mine.Parity):
    """A goal of another direction."""

    goal = ("accuracy", "maximum")


@pytest.mark.parametrize(
    ("section", "error"),
    [
        (
            {"model": {"cell": Wrong("input")}},
            r"Wrong.equations: reads u\['m'\]; allowed are the input_gates and vectors, n",
        ),
        (
            {"model": {"cell": Unpacking()}},
            r"Unpacking.equations: fails on a carry of carry_parts = 1, float32\[1, 64\]: ",
        ),
        ({"task": Upward()}, "task.goal=.*allowed are a metric's name and min or max"),
    ],
)
def test_faults_of_classes_are_told_before_anything_begins(section, error):
    with pytest.raises(UsageError, match=error):
        load({"train": {"steps": 1}, **section})


def test_arrays_that_do_not_fit_leave_what_is_there(tmp_path):
    xs, targets = np.ones((6, 5, 2), np.float32), np.arange(6) % 2
    three = dict.fromkeys(("train", "valid", "test"), (xs, targets))
    task = Arrays.write(tmp_path / "mine", **three)
    with pytest.raises(UsageError, match=r"mine/train_targets\.npy: of shape .*needed is"):
        Arrays.write(tmp_path / "mine", **{**three, "train": (xs, targets[:2])})
    assert len(list((tmp_path / "mine").iterdir())) == 6
    np.testing.assert_array_equal(task.read("train")["targets"], targets)
    with pytest.raises(UsageError, match="splits=train: needed are train, valid, test"):
        Arrays.write(tmp_path / "mine", train=(xs, targets))
