"""Generated bad input: every one ends in one line, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gzip
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import train
from gru_jax.config import explain_keys
from gru_jax.data.idx import read_idx
from gru_jax.errors import UsageError
from gru_jax.tasks import MNIST

KEYS = {key: (one.default, one.allowed) for key, one in explain_keys().items()}
FREE = {"task.data_dir", "profile", "model.init.gates"}  # any text may be right, or has tests of its own
WORDS = st.sampled_from(["fast", "1.2.3", "[", "{}", "[1,", "1e", "0x", "--", "True False", "nan?", "½", "\x00", "1;2"])
BROKEN = {
    "syntax": "def get_config(:",
    "none": "x = 1",
    "number": "def get_config():\n    return 3",
    "list": "def get_config():\n    return [1]",
    "raises": "def get_config():\n    raise KeyError('x')",
    "missing import": "import nothing_of_this_name\ndef get_config():\n    return {}",
    "needs more": "def get_config(a, b):\n    return {}",
    "set": "def get_config():\n    return {'train': {1, 2}}",
    "section": "def get_config():\n    return {'train': 7}",
    "deep": "def get_config():\n    return {'model': {'init': {'gates': {'z': {'gate_bias': {'a': 1}}}}}}",
    "binary": "\x01\x02",
}


@st.composite
def typos(draw):
    """A key that there is not."""
    key = draw(st.sampled_from(sorted(KEYS)))
    at = draw(st.integers(0, len(key)))
    letter = draw(st.sampled_from("abcxyz_.0"))
    changed = key[:at] + letter + key[at + draw(st.integers(0, 1)) :]
    return f"--config.{changed}=1" if changed not in KEYS else "--config.no.such.key=1"


@st.composite
def values(draw):
    """A value that its key cannot have."""
    key = draw(st.sampled_from(sorted(KEYS.keys() - FREE)))
    word = draw(WORDS.filter(lambda word: word not in KEYS[key][1].split(", ")))
    return f"--config.{key}={word}"


@st.composite
def ranges(draw):
    """A number that no key takes."""
    numeric = [k for k, (v, _) in KEYS.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return f"--config.{draw(st.sampled_from(numeric))}={draw(st.sampled_from(['nan', '-inf', '1e999', '--7']))}"


arguments = st.one_of(typos(), values(), ranges(), st.sampled_from(["--config", "--workdir", "stray", "--seed=1"]))


def refused(argv, workdir):
    with pytest.raises(UsageError) as raised:
        train.command([*argv, f"--workdir={workdir}"])
    assert "\n" not in str(raised.value).strip()
    assert len(str(raised.value)) < 2000
    assert not workdir.exists()


@pytest.mark.usefixtures("unchecked_types")
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argument=arguments)
def test_five_hundred_bad_arguments(argument, tmp_path):
    refused(["--config=configs/quickstart.py", argument], tmp_path / "run")


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_config_files(kind, tmp_path, unchecked_types):
    path = tmp_path / "config.py"
    path.write_text(BROKEN[kind])
    refused([f"--config={path}"], tmp_path / "run")


@pytest.fixture
def labels(data_dir, tmp_path):
    """A folder with the small test set, whose labels a test may damage."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for path in (data_dir / "mnist").glob("t10k*"):
        shutil.copy(path, folder)
    return folder / "t10k-labels-idx1-ubyte.gz"


damages = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 2**31)),
    st.tuples(st.just("cut"), st.integers(0, 2**31)),
    st.tuples(st.just("add"), st.integers(1, 100)),
    st.tuples(st.just("other"), st.integers(0, 255)),
)


def damaged(content, damage):
    kind, number = damage
    if kind == "flip":
        at = number % len(content)
        return content[:at] + bytes([content[at] ^ (1 + number % 255)]) + content[at + 1 :]
    if kind == "cut":
        return content[: number % len(content)]
    if kind == "add":
        return content + bytes(number)
    return gzip.compress(bytes([number]) * 100)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=damages)
def test_two_hundred_damaged_data_files(damage, labels):
    whole = labels.read_bytes()
    try:
        labels.write_bytes(damaged(whole, damage))
        with pytest.raises(UsageError) as raised:
            MNIST(data_dir=str(labels.parent.parent)).load("test")
        assert "\n" not in str(raised.value)
        assert str(labels) in str(raised.value)
        # The parser by itself, which a user's own file may meet: an array of bytes or a line, nothing else.
        with contextlib.suppress(UsageError):
            assert read_idx(labels).ndim >= 0
    finally:
        labels.write_bytes(whole)
