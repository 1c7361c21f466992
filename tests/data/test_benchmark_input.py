"""The command that times the input pipeline."""

import json

import pytest

from tests.processes import command


@pytest.mark.parametrize("workers", [0, 1])
def test_it_prints_the_rates_of_the_pipeline_and_of_decoding(workers):
    """Loader processes do most of the work; without their time, the ratio was 14."""
    options = ["--data=sample:pairs", "--image_size=64", "--patch_size=8", "--seconds=0.1"]
    options.append(f"--workers={workers}")
    done = command("vlbeit_jax.benchmark_input", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["pipeline"]["per_core_second"] < found["decode"]["per_core_second"]
