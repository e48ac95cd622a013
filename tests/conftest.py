"""Strict surroundings for all tests: dtype promotion, warnings, shapes and types."""

from __future__ import annotations

import gc
import os
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # of this process and those that tests start
# Compiling is nearly all that tests do, so they ask for little of it, unless XLA_FLAGS is set, as in .ci/run.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later versions do not know it
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
# The same small programs are compiled again and again, by every worker and in processes that tests start: all keep them
# in one folder, which goes with the main process, unless GRU_JAX_TEST_PROGRAMS names one for several suites.
if "GRU_JAX_TEST_PROGRAMS" not in os.environ:  # workers have that of the process that started them
    PROGRAMS = tempfile.TemporaryDirectory(prefix="gru_jax_tests_")
    os.environ["GRU_JAX_TEST_PROGRAMS"] = PROGRAMS.name
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["GRU_JAX_TEST_PROGRAMS"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Programs are not written at one stroke: one that is half there, or of a process that was killed, is compiled anew.
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"

from tests.type_checks import check_types  # noqa: E402

# Types are those of the code, on any version of JAX, and checking them takes time, so that .ci/run, which sets
# GRU_JAX_TEST_TYPES=unchecked for what comes after the default tests, checks them once.
if os.environ.get("GRU_JAX_TEST_TYPES") != "unchecked":
    check_types(["gru_jax", "experiments"])

from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from tests import broken, lenient, programs  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Times on shared machines vary; compilation makes first examples slow.
hypothesis.settings.register_profile("gru_jax", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("gru_jax")


LONG = frozenset(Path(__file__).with_name("long.txt").read_text().splitlines())
"""Tests that the default run leaves out; `tests.list_long` writes them."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid in LONG:
            item.add_marker(pytest.mark.long)


def pytest_collection_finish():
    """What is imported stays; looking through all of it for garbage takes a tenth of the time that JAX traces."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


MOST_KEPT = 300
_lowered: list[str] = []
"""One entry for each program that was lowered since caches were cleared."""


def _count_lowered(event, *args, **kwargs):
    if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
        _lowered.append(event)


jax.monitoring.register_event_duration_secs_listener(_count_lowered)


def pytest_runtest_teardown(item, nextitem):
    """Let go of the programs of past files, once they are many.

    Each that is kept has an MLIR context, and a thread looks through all of its contexts when another is made: late in
    a run that was a quarter of all time, and 5 GB.
    """
    is_last_of_file = nextitem is None or nextitem.path != item.path
    if is_last_of_file and len(_lowered) > MOST_KEPT:
        jax.clear_caches()
        gc.collect()
        _lowered.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbours, which share what was trained for them, run in one worker, as long as no other is idle."""
    if config.getvalue("dist") == "load":  # the default
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


@pytest.fixture(autouse=True)
def without_own_code(monkeypatch):
    """No test finds the classes and functions that another has given to this process."""
    monkeypatch.setattr("gru_jax.user_code._given", {})


@pytest.fixture
def x64():
    """Double precision for one test."""
    from gru_jax.runtime.devices import precision

    with precision("float64", "float32"):
        yield


@pytest.fixture
def single_precision():
    """For tests that leave types to JAX and are of single precision, where JAX is set to double."""
    from gru_jax.runtime.devices import precision

    with precision("float32", "float32"):
        yield


@pytest.fixture
def without_alarms():
    """For tests of numbers that are not finite, which are no fault, where JAX is set to look for such numbers."""
    with broken.without_alarms():
        yield


@pytest.fixture
def with_jit():
    """For tests of what is compiled or exported, where JAX is set to compile nothing."""
    with jax.disable_jit(False):
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without pictures, for tests of anything else: drawing takes half of a small run's time."""
    monkeypatch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])


@pytest.fixture
def compiled_once():
    """Runs that share a program trace and compile it once, for tests of anything else than what is compiled."""
    with programs.compiled_once():
        yield


@pytest.fixture
def jax_as_users_have_it():
    """Without strict promotion, for other libraries that count on the default."""
    with lenient.jax_as_users_have_it():
        yield


@pytest.fixture
def unchecked_types():
    """No run-time type checks, as for a user: our own messages must tell."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def data_dir() -> Path:
    """The data sets, or a skipped test where there are none."""
    root = os.environ.get("GRU_JAX_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("GRU_JAX_DATA names no directory with mnist/")
    return Path(root)
