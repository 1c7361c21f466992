"""Several processes are one program: the same parameters, one folder, and one answer when they differ."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.rendezvous import ProcessAddress, rendezvous
from vlbeit_jax.training.checkpoint import Leaves


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def together(count, arguments, devices=1, only=None, program=lambda _: ["-m", "vlbeit_jax.main"]):
    """Runs one command in several processes at once, ``arguments(process)`` added in each; gives code and errors of each."""
    place = [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    }
    running = [
        subprocess.Popen(
            [
                sys.executable,
                *program(process),
                *place,
                f"--process={process}",
                *map(str, arguments(process)),
            ],
            cwd=tiny.TOP,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (range(count) if only is None else only)
    ]
    found = [(process.communicate(timeout=300)[1], process.returncode) for process in running]
    return [code for _, code in found], [text for text, _ in found]


def assert_close(found, wanted, step=20):
    """Every parameter and moment within float32 round-off of twenty steps."""
    for item in ("params", "optimizer", "extra"):
        one, other = (
            Leaves(folder / "checkpoints" / str(step) / item) for folder in (found, wanted)
        )
        assert one.shapes == other.shapes
        for name in one.shapes:
            a, b = (np.asarray(leaves[name], np.float64) for leaves in (one, other))
            assert abs(a - b).max() <= 2e-5 * max(abs(b).max(), 1e-3), name


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """Twenty joint steps of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config = tiny.config_file(
        tiny.pretrain_config(world, schedule="image+text+pair", keep_last=2), folder
    )
    done = tiny.command("vlbeit_jax.main", f"--config={config}", f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def two(alone):
    """The same steps of two processes."""
    codes, texts = together(
        2, lambda _: [f"--config={alone / 'config_of_test.py'}", f"--workdir={alone / 'two'}"]
    )
    assert codes == [0, 0], texts
    return alone / "two", texts


def test_two_processes_agree_with_one(alone, two):
    folder, texts = two
    assert_close(folder, alone / "run")
    assert (
        "of 2 hosts" in texts[0] and "step 20/20" in texts[0] and "step" not in texts[1]
    )  # One of them speaks.
    assert [line["step"] for line in tiny.metrics_of(folder)] == [5, 10, 15, 20]
    assert [p.name for p in folder.glob("tensorboard/*")] and len(
        list(folder.glob("tensorboard/*"))
    ) == 1


@pytest.mark.slow
def test_four_processes_with_sharded_parameters_agree_with_one(alone, tmp_path):
    mesh = "--config.mesh.fsdp=2"
    codes, texts = together(
        4,
        lambda _: [
            f"--config={alone / 'config_of_test.py'}",
            f"--workdir={tmp_path / 'run'}",
            mesh,
        ],
    )
    assert codes == [0] * 4, texts
    assert_close(tmp_path / "run", alone / "run")


@pytest.mark.parametrize("count", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_another_number_of_processes(alone, two, tmp_path, count):
    """From step 10 of two processes, on one with eight devices or four with two."""
    shutil.copytree(two[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "20")
    arguments = [
        f"--config={alone / 'config_of_test.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.mesh.fsdp=2",
        "--config.mesh.tensor=2",
    ]
    if count == 1:
        done = tiny.command("vlbeit_jax.main", *arguments, devices=8)
        codes, texts = [done.returncode], [done.stderr]
    else:
        codes, texts = together(count, lambda _: arguments, devices=2)
    assert codes == [0] * count and "from step 10 to 20" in texts[0], texts
    assert_close(tmp_path / "run", alone / "run")


def test_hosts_that_differ_are_told_in_what(alone, tmp_path):
    config = f"--config={alone / 'config_of_test.py'}"
    codes, texts = together(
        2, lambda p: [config, f"--workdir={tmp_path / 'run'}", f"--config.run.seed={p}"]
    )
    assert codes == [2, 2] and texts[0] == texts[1]
    assert f"config.run.seed: 1 on host {socket.gethostname()} (process 1), 0 on host" in texts[0]
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_host_is_that_of_all(alone, tmp_path):
    tokenizer = lambda p: [f"--config.data.text_tokenizer={tmp_path / 'none'}"] if p else []  # noqa: E731
    codes, texts = together(
        2,
        lambda p: [
            f"--config={alone / 'config_of_test.py'}",
            f"--workdir={tmp_path / 'run'}",
            *tokenizer(p),
        ],
    )
    assert codes == [2, 2] and texts[0] == texts[1] and "(process 1): no text tokenizer" in texts[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_shared_is_named(alone, tmp_path):
    (tmp_path / "1").mkdir()
    codes, texts = together(
        2, lambda p: [f"--config={alone / 'config_of_test.py'}", f"--workdir={tmp_path / str(p)}"]
    )
    assert codes == [2, 2] and f"--workdir: '{tmp_path / '1'}' on host" in texts[0]


def test_a_host_that_does_not_come_is_named(alone, tmp_path):
    arguments = [
        f"--config={alone / 'config_of_test.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.cluster.initialization_timeout=5",
    ]
    codes, texts = together(3, lambda _: arguments, only=[0, 2])
    assert (
        codes == [2, 2]
        and "process(es) 1 of 3 did not come" in texts[0]
        and "did not come" in texts[1]
    )
    codes, texts = together(2, lambda _: arguments, only=[1])
    assert codes == [2] and "(process 1 of 2) could not reach process 0" in texts[0]


BROKEN = """
import runpy
from vlbeit_jax.tasks import pretrain
def fail(*_):
    raise OSError("disk gone")
pretrain.Pretrain.training_batches = fail
runpy.run_module("vlbeit_jax.main", run_name="__main__")
"""


def test_a_crash_of_one_host_ends_all(alone, tmp_path):
    """An error that one host alone knows of; the others do not wait for their time-outs."""
    arguments = [
        f"--config={alone / 'config_of_test.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.cluster.shutdown_timeout=1000",
    ]
    codes, texts = together(
        2, lambda _: arguments, program=lambda p: ["-c", BROKEN] if p else ["-m", "vlbeit_jax.main"]
    )
    assert codes[1] == 1 and "(process 1 of 2) failed" in texts[1] and "disk gone" in texts[1]
    assert codes[0] not in (0, 2)


def calls(places, seconds=5.0):
    """What each of some processes hears, all called in threads of this one."""
    heard = {}

    def call(index, place):
        try:
            rendezvous(address, seconds)
            heard[index] = None
        except UsageError as error:
            heard[index] = str(error)

    threads = [threading.Thread(target=call, args=each) for each in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [heard[index] for index in range(len(places))]


def test_the_roll_call_hears_everybody_and_ignores_strangers():
    port = free_port()

    def stranger():
        for message in (b"GET / HTTP/1.1\r\n\r\n", b"[]", b""):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("localhost", port), timeout=2) as other,
            ):
                other.sendall(message)

    thread = threading.Timer(0.3, stranger)
    thread.start()
    late = threading.Timer(
        0.8, lambda: found.append(calls([ProcessAddress(f"localhost:{port}", 3, 2)]))
    )
    found = []
    late.start()
    assert calls([ProcessAddress(f"localhost:{port}", 3, process) for process in (1, 0)]) == [
        None,
        None,
    ]
    late.join()
    assert found == [[None]]


def test_the_roll_call_tells_processes_of_one_number_and_different_counts():
    port = free_port()
    heard = calls([ProcessAddress(f"localhost:{port}", 3, process) for process in (0, 1, 1)])
    assert (
        heard[0] is not None
        and "both say that they are process 1" in heard[0]
        and heard[1] == heard[2] == heard[0]
    )
    port = free_port()
    heard = calls(
        [ProcessAddress(f"localhost:{port}", 2, 0), ProcessAddress(f"localhost:{port}", 4, 1)]
    )
    assert heard[0] == heard[1] is not None and "counts 4 processes" in heard[0]
