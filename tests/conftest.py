"""Eight simulated devices for every test and quick compilation, set before JAX is imported."""

import fcntl
import gc
import importlib.util
import os
import pathlib
import re
import tempfile

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
# Commands that tests start share what they compile, for one session.
CACHE = (
    pathlib.Path(tempfile.gettempdir())
    / f"vlbeit_cache_{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
)
os.environ["XDG_CACHE_HOME"] = str(CACHE)

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

from tests.annotations import CHECKED, CHECKER  # noqa: E402

install_import_hook(CHECKED, CHECKER)

from tests import tiny  # noqa: E402 - imports the package, with its annotations checked


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> tiny.World:
    """Small data sets, tokenizers and a trained visual tokenizer, made once for all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "world"
    with open(
        pathlib.Path(tempfile.gettempdir()) / f"vlbeit_world_{os.getuid()}.lock", "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return tiny.make_world(folder) if not folder.exists() else tiny.world_in(folder)


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
