"""The command that times the input pipeline."""

import json

from tests.processes import command


def test_it_prints_the_rates_of_the_pipeline_and_of_decoding():
    options = ["--data=sample:pairs", "--image_size=64", "--patch_size=8", "--seconds=0.1"]
    done = command("vlbeit_jax.benchmark_input", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["pipeline"]["per_core_second"] < found["decode"]["per_core_second"]
