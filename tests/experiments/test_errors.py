"""Bad input ends in one `error:` line that names it, and exit code 2; nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli, evaluate, train
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parent.parent.parent
GOOD = "--config configs/quickstart.py"
FILES = {
    "broken.py": "def get_config(:\n",
    "raises.py": "def get_config():\n    x = 1\n    raise RuntimeError('two\\nlines')\n",
    "empty.py": "x = 1\n",
    "number.py": "def get_config():\n    return 3\n",
    "noarg.py": "def get_config():\n    return {'train': {'steps': 1}}\n",
    "typo.py": "def get_config():\n    return {'train': {'stepz': 1}}\n",
    "list.py": "def get_config():\n    return {'train': {'steps': [1, 2]}}\n",
    "both.py": "def get_config():\n    return {'train': {'steps': 1, 'epochs': 1}}\n",
    "flat.py": "def get_config():\n    return {'optimizer': 3, 'train': {'steps': 1}}\n",
    "none.py": "def get_config():\n    return {'train': {'steps': None}}\n",
    "text.py": "def get_config():\n    return {'train': {'steps': 1}, 'optimizer': {'lr': '0.1'}}\n",
}

BAD = [  # arguments, and what the line must name
    ("", ["--config", "configs/quickstart.py"]),
    ("configs/quickstart.py", ["configs/quickstart.py", "stray"]),
    ("config=configs/quickstart.py", ["stray", "--config"]),
    (f"{GOOD} config.seed=3", ["config.seed=3", "did you mean '--config.seed=3'"]),
    (f"{GOOD} --confg.seed=3", ["--confg.seed"]),
    (f"{GOOD} --workdr=x", ["--workdr", "did you mean 'workdir'"]),
    ("--config", ["--config", "value"]),
    (f"{GOOD} --workdir=", ["--workdir=", "value"]),
    (f"{GOOD} --config.seed=1 --config.seed=2", ["config.seed=2", "twice"]),
    ("--config configs/quikstart.py", ["quikstart.py", "did you mean 'configs/quickstart.py'"]),
    ("--config nowhere/at_all.py", ["nowhere/at_all.py", "no such file"]),
    ("--config configs", ["configs", "no such file"]),
    ("--config {tmp}/broken.py", ["broken.py", "SyntaxError"]),
    ("--config {tmp}/raises.py", ["raises.py", "line 3", "RuntimeError: two lines"]),
    ("--config {tmp}/empty.py", ["empty.py", "get_config"]),
    ("--config {tmp}/number.py", ["number.py", "int", "ConfigDict"]),
    ("--config {tmp}/noarg.py:7", ["noarg.py:7", "too many"]),
    ("--config configs/adding.py:many", ["adding.py:many", "many"]),
    ("--config {tmp}/typo.py", ["train.stepz", "did you mean 'steps'"]),
    ("--config {tmp}/list.py", ["train.steps=[1, 2]", "whole number"]),
    ("--config {tmp}/both.py", ["train.steps=1", "train.epochs=1"]),
    ("--config {tmp}/flat.py", ["optimizer=3", "section", "lr"]),
    ("--config {tmp}/none.py", ["train.steps", "missing"]),
    ("--config {tmp}/text.py", ["optimizer.lr='0.1'", "finite number"]),
    (f"{GOOD} --config.optimizer.lrate=1", ["optimizer.lrate", "did you mean 'lr'"]),
    (f"{GOOD} --config.optimiser.lr=1", ["optimiser", "did you mean 'optimizer'"]),
    (f"{GOOD} --config.lr=1", ["config.lr", "did you mean 'optimizer.lr'"]),
    (f"{GOOD} --config.optimizer.lr.x=1", ["optimizer.lr"]),
    (f"{GOOD} --config.optimizer=3", ["optimizer=3", "section"]),
    (f"{GOOD} --config.optimizer.name=adan", ["adan", "did you mean 'adam'"]),
    (f"{GOOD} --config.model.cell.name=gruu", ["gruu", "did you mean 'gru'"]),
    (f"{GOOD} --config.model.cell.reset=aftr", ["model.cell.reset='aftr'", "after, before"]),
    (f"{GOOD} --config.model.init.recurrent=orthogonl", ["model.init.recurrent", "did you mean 'orthogonal'"]),
    (f"{GOOD} --config.model.init.gates.q.bias=zeros", ["model.init.gates='q'", "n, r, z"]),
    (f"{GOOD} --config.model.init.gates.n.bias_scale=x", ["model.init.gates.n.bias_scale"]),
    (f"{GOOD} --config.model.init.t_min=300", ["model.init.t_min=300", "t_max"]),
    (f"{GOOD} --config.model.cell.name=elman", ["Elman", "chrono"]),
    (f"{GOOD} --config.task.name=ading", ["task.name='ading'", "did you mean 'adding'"]),
    (f"{GOOD} --config.task.lenght=3", ["task.lenght", "did you mean 'length'"]),
    (f"{GOOD} --config.task.length=1", ["task.length=1", "from 2"]),
    (f"{GOOD} --config.task.data_dir=/tmp", ["task.data_dir"]),
    (f"{GOOD} --config.optimizer.lr=nan", ["optimizer.lr=nan", "finite"]),
    (f"{GOOD} --config.optimizer.lr=1e999", ["optimizer.lr=1e999", "finite"]),
    (f"{GOOD} --config.optimizer.lr=-1", ["optimizer.lr=-1", "from 0"]),
    (f"{GOOD} --config.optimizer.lr=[0.1,0.2]", ["optimizer.lr=[0.1,0.2]"]),
    (f"{GOOD} --config.optimizer.b1=1.5", ["optimizer.b1=1.5", "from 0 to 1"]),
    (f"{GOOD} --config.optimizer.nesterov=maybe", ["optimizer.nesterov=maybe", "true, false"]),
    (f"{GOOD} --config.optimizer.warmup_steps=9999", ["optimizer.warmup_steps=9999"]),
    (f"{GOOD} --config.model.hidden=64,x", ["model.hidden=64,x", "whole numbers"]),
    (f"{GOOD} --config.model.hidden=()", ["model.hidden=()"]),
    (f"{GOOD} --config.model.hidden=64,0", ["model.hidden=0", "from 1"]),
    (f"{GOOD} --config.model.dropout=2", ["model.dropout=2"]),
    (f"{GOOD} --config.model.readout=every", ["model.readout='every'", "last, mean"]),
    (f"{GOOD} --config.train.steps=10.5", ["train.steps=10.5", "whole number"]),
    (f"{GOOD} --config.train.steps=0", ["train.steps=0", "from 1"]),
    (f"{GOOD} --config.train.epochs=2", ["train.epochs=2", "train.steps"]),
    (f"{GOOD} --config.train.steps=100000000 --config.train.batch_size=100", ["train.steps", "allowed are up to"]),
    (f"{GOOD} --config.train.batch_size=1000000 --config.task.length=10000000 --config.train.steps=1",
     ["train.batch_size=1000000", "GiB"]),
    (f"{GOOD} --config.seed=-1", ["seed=-1"]),
    (f"{GOOD} --config.model.hidden={{{{[]:1}}}}", ["model.hidden={[]:1}", "whole numbers"]),
    (f"{GOOD} --config.model.init.gates.n=5", ["model.init.gates.n=5", "section"]),
    (f"{GOOD} --config.model.init.gates.r.gate_bias=chrono", ["gates.r.gate_bias", "without effect", "gate 'z'"]),
    (f"{GOOD} --config.model.cell.name=elman --config.model.init.gate_bias=same --config.model.init.gates.n.t_max=9",
     ["gates.n.t_max", "without effect"]),
    (f"{GOOD} --config.model.cell.name=lstm --config.model.init.gates.i.bias=constant", ["gates.i.bias", "sets this"]),
    (f"{GOOD} --config.model.cell.name=mingru --config.model.init.gates.z.recurrent=zeros", ["gates.z.recurrent"]),
    (f"{GOOD} --config.model.dropout=0.5", ["model.dropout=0.5", "there is one"]),
    (f"{GOOD} --config.optimizer.nesterov=true", ["optimizer.nesterov", "momentum"]),
    (f"{GOOD} --config.dtype=float16", ["dtype='float16'", "gradients below 6e-8", "loss scale", "bfloat16"]),
    (f"{GOOD} --config.dtype=half", ["dtype='half'", "loss scale", "bfloat16"]),
    (f"{GOOD} --config.platform=tpu", ["platform='tpu'", "cpu"]),
    ("--config configs/mnist_rows.py --config.task.data_dir={tmp}/absent", ["task.data_dir", "no such directory"]),
    ("--config configs/mnist_rows.py --config.task.data_dir={tmp}/damaged", ["damaged", "sha256"]),
    ("--config configs/mnist_rows.py --config.train.batch_size=60000", ["train.batch_size=60000", "55000"]),
    (f"{GOOD} --workdir {{tmp}}/a_file", ["a_file", "not a directory"]),
    (f"{GOOD} --workdir {{tmp}}/a_file/below", ["a_file"]),
    (f"{GOOD} --workdir /proc/gru_jax", ["/proc/gru_jax", "cannot be written"]),
    (f"{GOOD} --workdir {{tmp}}/others", ["others", "not a run directory"]),
    (f"{GOOD} --workdir {{tmp}}/half", ["config.json", "damaged"]),
    (f"{GOOD} --workdir {{tmp}}/run", ["another config", "task.length was 8, is 200"]),
]  # fmt: skip

BAD_EVALUATE = [
    ("", ["--workdir", "missing"]),
    ("{tmp}/run", ["stray"]),
    ("--workdir {tmp}/nowhere", ["nowhere", "config.json"]),
    ("--workdir {tmp}/run --split tset", ["tset", "did you mean 'test'"]),
    ("--workdir {tmp}/run --split train", ["train", "valid, test"]),
    ("--workdir {tmp}/run --checkpoint newest", ["newest", "best, latest"]),
    ("--workdir {tmp}/run --data_dir /tmp", ["--data_dir", "reads no files"]),
    ("--workdir {tmp}/run --config configs/quickstart.py", ["--config"]),
    ("--workdir {tmp}/half", ["config.json", "damaged"]),
    ("--workdir {tmp}/empty_run", ["checkpoint"]),
]


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "a_file").write_text("")
    (folder / "others").mkdir()
    (folder / "others" / "thesis.tex").write_text("")
    (folder / "half").mkdir()
    (folder / "half" / "config.json").write_text('{"seed": 0, "ta')
    (folder / "damaged" / "mnist").mkdir(parents=True)
    (folder / "damaged" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"no image")
    train.run(small(), folder / "run")
    (folder / "empty_run").mkdir()
    shutil.copy(folder / "run" / "config.json", folder / "empty_run" / "config.json")
    return folder


def one_line(main, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main(main, lambda: "usage")
    errors = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    return errors[0]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[a or "nothing" for a, _ in BAD])
def test_train(arguments, words, tmp, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    before = set(ROOT.glob("runs/*"))
    line = one_line(train.command, arguments.format(tmp=tmp).split(), monkeypatch, capsys)
    assert all(word in line for word in words), line
    assert set(ROOT.glob("runs/*")) == before


@pytest.mark.parametrize(("arguments", "words"), BAD_EVALUATE, ids=[a or "nothing" for a, _ in BAD_EVALUATE])
def test_evaluate(arguments, words, tmp, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    line = one_line(evaluate.command, arguments.format(tmp=tmp).split(), monkeypatch, capsys)
    assert all(word in line for word in words), line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; /proc stands in above")
def test_unwritable_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    tmp_path.chmod(0o500)
    line = one_line(train.command, [*GOOD.split(), "--workdir", str(tmp_path / "run")], monkeypatch, capsys)
    assert "cannot be written" in line


def test_a_real_process_prints_nothing_else():
    command = [sys.executable, "-m", "experiments.train", *GOOD.split(), "--config.optimizer.lr=oops"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: optimizer.lr=oops: a finite number is needed here\n"
    assert done.stdout == ""


def test_no_data_and_no_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GRU_JAX_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    line = one_line(train.command, ["--config", "configs/mnist_rows.py"], monkeypatch, capsys)
    for word in ("train-images-idx3-ubyte.gz", "https://", "Network is unreachable", "put the file there"):
        assert word in line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("flow.npz", b"", ["flow.npz", "damaged"]),
        ("flow.npz", b"PK\x03\x04 cut short", ["flow.npz", "damaged"]),
        ("metrics.jsonl", b"[]\n", ["metrics.jsonl", "line 1"]),
        ("config.json", b"[]", ["config.json", "not a JSON object"]),
        ("env.json", b"\xff\xfe\x00", ["env.json", "damaged"]),
    ],
)
def test_damaged_files_of_a_run(name, content, words, tmp, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "load_config", lambda *_: small())
    shutil.copytree(tmp / "run", tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / name).write_bytes(content)
    line = one_line(train.command, ["--config", "x.py", "--workdir", str(tmp_path / "run")], monkeypatch, capsys)
    assert all(word in line for word in words), line


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    import jax

    def exhausted(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 62056027680 bytes.\nMore.")

    line = one_line(exhausted, [], monkeypatch, capsys)
    assert "62056027680 bytes" in line


def test_a_missing_backend_is_one_line():
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "-m", "experiments.train", *GOOD.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert [line.startswith("error: ") for line in done.stderr.splitlines()] == [True]
    assert "JAX_PLATFORMS=cuda" in done.stderr
