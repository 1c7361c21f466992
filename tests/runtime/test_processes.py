"""Several processes are one program: equal parameters, one folder, one answer if they differ."""

import os
import shutil
import socket

import numpy as np
import pytest

from tests import processes, tiny
from tests.runtime.test_rendezvous import free_port
from vlbeit_jax.training.leaves import Leaves

MAIN = ("-m", "vlbeit_jax.main")


def together(count, arguments, devices=1, only=None, program=lambda _: MAIN):
    """Runs a command in several processes at once.

    Args:
      count: number of processes.
      arguments: of a process, by its index.
      devices: of each process.
      only: indices of the processes to start, if not all.
      program: Python's arguments before those of the command, by index.

    Returns:
      Exit codes, and what each process wrote to stderr.
    """
    shared = [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    running = []
    for process in range(count) if only is None else only:
        line = [*program(process), *shared, f"--process={process}", *arguments(process)]
        running.append(processes.begin(*line, environment=os.environ | {"XLA_FLAGS": flags}))
    done = [process.ended() for process in running]
    return [each.returncode for each in done], [each.stderr for each in done]


def assert_close(found, wanted, step=20):
    """Every parameter and moment is within float32 round-off of twenty steps."""
    for item in ("params", "optimizer", "model_state"):
        one, other = (Leaves(run / "checkpoints" / str(step) / item) for run in (found, wanted))
        assert one.shapes == other.shapes
        for name in one.shapes:
            a, b = (np.asarray(leaves[name], np.float64) for leaves in (one, other))
            assert abs(a - b).max() <= 2e-5 * max(abs(b).max(), 1e-3), name


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """Twenty steps of one process, on pairs: each device sums streams before devices meet."""
    folder = tmp_path_factory.mktemp("alone")
    values = tiny.pretrain_config(world, schedule="pair", keep_last=2)
    config = tiny.config_file(values, folder)
    done = tiny.command("vlbeit_jax.main", f"--config={config}", f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def config(alone):
    """The flag that names the configuration of that run."""
    return f"--config={alone / 'config_of_test.py'}"


@pytest.fixture(scope="module")
def texts(world, tmp_path_factory):
    """The flag of a run of texts, which compiles in a third of the time."""
    values = tiny.pretrain_config(world, schedule="text")
    return f"--config={tiny.config_file(values, tmp_path_factory.mktemp('texts'))}"


@pytest.fixture(scope="module")
def two(alone, config):
    """The same steps in two processes: the folder, and what each process said."""
    codes, texts = together(2, lambda _: [config, f"--workdir={alone / 'two'}"])
    assert codes == [0, 0], texts
    return alone / "two", texts


def test_two_processes_agree_with_one(alone, two):
    folder, (first, second) = two
    assert_close(folder, alone / "run")
    assert "2 x CPU on 2 hosts" in first and "step 20/20" in first
    assert "step" not in second  # Only the primary writes.
    assert [line["step"] for line in tiny.metrics_of(folder)] == [5, 10, 15, 20]
    assert len(list(folder.glob("tensorboard/*"))) == 1


@pytest.mark.slow
def test_four_processes_with_sharded_parameters_agree_with_one(alone, config, tmp_path):
    arguments = [config, f"--workdir={tmp_path / 'run'}", "--config.mesh.fsdp=2"]
    codes, texts = together(4, lambda _: arguments)
    assert codes == [0] * 4, texts
    assert_close(tmp_path / "run", alone / "run")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_resumes_with_another_number_of_processes(alone, config, two, tmp_path, count):
    """From step 10 of two processes, on one with eight devices or four with two."""
    shutil.copytree(two[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "20")
    mesh = ["--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    arguments = [config, f"--workdir={tmp_path / 'run'}", *mesh]
    if count == 1:
        done = tiny.command("vlbeit_jax.main", *arguments, devices=8)
        codes, texts = [done.returncode], [done.stderr]
    else:
        codes, texts = together(count, lambda _: arguments, devices=2)
    assert codes == [0] * count and "resumes at step 10 of 20" in texts[0], texts
    assert_close(tmp_path / "run", alone / "run")


def test_hosts_that_differ_are_told_in_what(texts, tmp_path):
    workdir = tmp_path / "run"
    codes, told = together(
        2, lambda process: [texts, f"--workdir={workdir}", f"--config.run.seed={process}"]
    )
    assert codes == [2, 2] and told[0] == told[1]
    host = socket.gethostname()
    assert f"config.run.seed: 1 on host {host} (process 1), 0 on host {host}" in told[0]
    assert not workdir.exists()


def test_an_error_of_one_host_is_that_of_all(texts, tmp_path):
    arguments = [texts, f"--workdir={tmp_path / 'run'}"]
    wrong = f"--config.task.text_tokenizer={tmp_path / 'none'}"
    codes, told = together(2, lambda process: [*arguments, wrong] if process else arguments)
    assert codes == [2, 2] and told[0] == told[1] and "(process 1): no text tokenizer" in told[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_shared_is_named(texts, tmp_path):
    codes, told = together(2, lambda process: [texts, f"--workdir={tmp_path / str(process)}"])
    assert codes == [2, 2] and f"--workdir: '{tmp_path / '1'}' on host" in told[0]


def test_a_host_that_does_not_come_is_named(texts, tmp_path):
    timeout = "--config.cluster.initialization_timeout=5"
    arguments = [texts, f"--workdir={tmp_path / 'run'}", timeout]
    codes, told = together(3, lambda _: arguments, only=[0, 2])
    assert codes == [69, 69] and "process(es) 1 of 3 did not come" in told[0]
    assert "did not come" in told[1]


BROKEN = """
import runpy
from vlbeit_jax.data import pipeline
def fail(*_):
    raise OSError("disk gone")
pipeline.batches = fail
runpy.run_module("vlbeit_jax.main", run_name="__main__")
"""
FULL = """
import runpy
from jax.errors import JaxRuntimeError
from vlbeit_jax.training import step
call, calls = step.TrainStep.__call__, []
def fail(self, *given):
    calls.append(given)
    if len(calls) == 3:
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 GB")
    return call(self, *given)
step.TrainStep.__call__ = fail
runpy.run_module("vlbeit_jax.main", run_name="__main__")
"""
LONG_WAITS = ("--config.cluster.shutdown_timeout=1000", "--config.cluster.heartbeat_timeout=1000")


@pytest.mark.parametrize("process", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_crash_of_one_host_ends_all(texts, tmp_path, process):
    """The others do not know of the error, and must not wait for their timeouts."""
    arguments = [texts, f"--workdir={tmp_path / 'run'}", *LONG_WAITS]
    codes, told = together(
        2, lambda _: arguments, program=lambda each: ("-c", BROKEN) if each == process else MAIN
    )
    assert codes == [1, 1]
    said = f"(process {process} of 2) failed; its own output has the traceback: OSError: disk gone"
    assert said in told[0] and said in told[1]
    # The control: one traceback, that of the process that failed.
    assert ["Traceback" in text for text in told] == [process == 0, process == 1]


# Process 0 has the store, and so ends last.
@pytest.mark.parametrize("process", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_full_device_of_one_host_is_explained_by_all(texts, tmp_path, process):
    """It fails at the third step, when the others wait for it in a collective operation."""
    arguments = [texts, f"--workdir={tmp_path / 'run'}", *LONG_WAITS]
    codes, told = together(
        2, lambda _: arguments, program=lambda each: ("-c", FULL) if each == process else MAIN
    )
    assert codes == [2, 2]
    for text in told:
        (said,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert f"(process {process} of 2): the memory of a device is full. Reduce" in said
        assert "run.accumulate=2" in said and "allocating 9 GB" in said
        assert "Traceback" not in text


def test_a_host_without_its_data_ends_all_before_any_timeout(world, tmp_path):
    """The steps follow from the data, which one host does not find."""
    values = tiny.changed(tiny.pretrain_config(world, schedule="text"), run={"steps": 0})
    values = tiny.changed(values, run={"epochs": 1.0})
    file = tiny.config_file(values, tmp_path)
    arguments = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    missing = f"--config.task.text.sources={tmp_path / 'none'}"
    codes, texts = together(2, lambda each: [*arguments, *[missing] * each])
    assert codes == [2, 2] and texts[0] == texts[1], texts
    assert "(process 1): " in texts[0] and str(tmp_path / "none") in texts[0]
