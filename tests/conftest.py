"""Eight simulated devices for every test and quick compilation, set before JAX is imported."""

import atexit
import contextlib
import fcntl
import gc
import importlib.util
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable

from tests.quick_compilation import known_flags

# One CPU simulates eight devices; a GPU cannot. Tests that need several devices are skipped on a
# GPU, and tests that need a GPU run only there.
os.environ["JAX_PLATFORMS"] = os.environ.get("VLBEIT_TEST_PLATFORM", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            *known_flags(),
            "--xla_force_host_platform_device_count=8",
        ]
    )
# xdist's workers and the commands that they fork ask for huge pages: a tenth less CPU time for
# tracing and compilation. glibc reads this when a process starts.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
# What is compiled is kept for one session: by the commands that tests start in one folder, and by
# xdist's workers in another. The folder is new, so nothing in it can be stale. The workers inherit
# it from the process that starts them.
CACHE = "VLBEIT_TESTS_CACHE"
if CACHE not in os.environ:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="vlbeit_cache_")
    atexit.register(shutil.rmtree, os.environ[CACHE], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ[CACHE]
# By default JAX keeps nothing that compiles in less than a second, as most programs of tests do.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

from tests.annotations import CHECKED, CHECKER  # noqa: E402
from tests.shared_programs import write_whole_programs  # noqa: E402

write_whole_programs()
jax.config.update("jax_compilation_cache_dir", f"{os.environ[CACHE]}/workers")
install_import_hook(CHECKED, CHECKER)

from tests import tiny  # noqa: E402 - imports the package, with its annotations checked
from vlbeit_jax.cost.flops import StepFlops  # noqa: E402
from vlbeit_jax.runtime import hooks_of_run, start  # noqa: E402
from vlbeit_jax.training import mesh  # noqa: E402

# A run counts the operations of its step once, which traces each loss: a sixth of the time of a new
# run. What it counts is compared with formulas in tests/cost, and what it logs of them in
# tests/runtime/test_speed.py, where runs are processes of their own.
hooks_of_run.flops_of_streams = lambda task, trained: {
    name: StepFlops(1e9, 0.0, stream.tokens, stream.batch_size)
    for name, stream in task.streams().items()
}


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], object]
) -> pathlib.Path:
    """Makes a folder for all workers of this session; those that come later wait for the first."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(folder)
    return folder


# Tests in these folders are about tasks, runs and files, not about meshes. On one device, a run
# takes two thirds of the time that it takes on eight.
ON_ONE_DEVICE = ("tasks", "convert", "report", "transfer", "api", "runtime", "buckets")


@contextlib.contextmanager
def on_one_device():
    """Lets the runs of its body take one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "all_devices", lambda: jax.devices()[:1])
        yield


@pytest.fixture(scope="module", autouse=True)
def devices_of_folder(request):
    """Lets a run of this process take one device, in folders that are not about meshes."""
    one = request.path.parent.name in ON_ONE_DEVICE
    with on_one_device() if one else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> tiny.World:
    """Small data sets, tokenizers and a trained visual tokenizer; read only."""
    with on_one_device():
        return tiny.world_in(made_once(tmp_path_factory, "world", tiny.make_world))


@pytest.fixture(scope="session")
def pretrained(world, tmp_path_factory) -> pathlib.Path:
    """A run of sixty alternating steps with evaluation; read only."""
    with on_one_device():
        return made_once(
            tmp_path_factory,
            "pretrained",
            lambda folder: start.train(tiny.learning_config(world, evaluate_every=30), folder),
        )


# Folders whose files take longest. They come first, so that both workers end at the same time.
# "tests" stands for the files that lie in no folder.
LONG = ("training", "runtime", "tasks", "convert", "plan", "models", "report", "tests", "prepare")


def pytest_collection_modifyitems(items):
    """Sorts tests by the time that their files take; xdist keeps the order."""
    folders = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: folders.get(item.path.parent.name, len(LONG)))


def pytest_collection_finish(session):
    """Collects garbage less often: tracing makes many small objects, and few of them are cycles."""
    gc.freeze()  # What was imported stays for the session.
    gc.set_threshold(100_000, 20, 100)


NO_TORCH = importlib.util.find_spec("torch") is None


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Skips test files that need PyTorch where it is not installed, and counts their tests."""
    outcome = yield
    report = outcome.get_result()
    if NO_TORCH and report.failed and "No module named 'torch'" in str(report.longrepr):
        tests = len(re.findall(r"^def test_", collector.path.read_text(), re.MULTILINE))
        report.outcome = "skipped"
        report.longrepr = (
            str(collector.path),
            1,
            f"Skipped: PyTorch is not installed: {tests} test functions",
        )
