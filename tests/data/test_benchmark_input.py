"""The command that times the input pipeline."""

import json
import multiprocessing
import time

import pytest

from tests.processes import TOP, command
from vlbeit_jax.runtime.input_rate import processor_seconds, rate

OPTIONS = ["--data=sample:pairs", "--image_size=64", "--patch_size=8"]


def test_it_prints_the_rates_of_the_pipeline_and_of_decoding():
    done = command("vlbeit_jax.benchmark_input", *OPTIONS, "--seconds=0.1", "--pod_hosts=1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["image"]["per_core_second"] < found["decode"]["per_core_second"]
    for stream, tokens in (("image", 65), ("pair", 65 + 59), ("text", 128)):
        figures = found[stream]
        assert figures["tokens_per_wall_second"] == pytest.approx(
            tokens * figures["per_wall_second"], rel=0.01
        )
    megabytes = found["image"]["per_wall_second"] * found["bytes_per_image"] / 1e6
    assert found["image"]["megabytes_per_wall_second"] == pytest.approx(megabytes, abs=0.01)
    rows = found["pod_host"]["rows_per_second_of_each_stream"]
    plan = json.loads((TOP / "docs" / "plans" / "base-v5e-16x16.json").read_text())
    assert rows == pytest.approx(2048 / plan["step_seconds"], rel=0.01)
    cores = found["pod_host"]["cores"]["image"]
    assert cores == pytest.approx(rows / found["image"]["per_core_second"], abs=0.1)


@pytest.mark.slow
def test_the_time_of_loader_processes_counts():
    """Without it, the pipeline would seem several times as fast as decoding alone."""
    done = command("vlbeit_jax.benchmark_input", *OPTIONS, "--seconds=1", "--workers=2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["pipeline_over_decode"] < 1


def busy(seconds):
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass
    time.sleep(60)


def test_processor_time_of_a_running_child_counts():
    before = processor_seconds()
    child = multiprocessing.get_context("spawn").Process(target=busy, args=(0.3,))
    child.start()
    try:
        deadline = time.monotonic() + 50
        while processor_seconds() - before < 0.3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processor_seconds() - before >= 0.3
    finally:
        child.kill()
        child.join()


def test_waiting_is_the_share_outside_of_the_steps():
    found = rate(lambda: [time.sleep(0.02), 4][1], 0.5, step_seconds=0.06)
    assert found.rows % 4 == 0 and found.waited / found.wall == pytest.approx(0.25, abs=0.1)
