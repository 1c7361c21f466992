"""The command that times the input pipeline."""

import json
import subprocess
import sys

from tests.tiny import TOP


def test_it_prints_the_rates_of_the_pipeline_and_of_decoding():
    options = ["--data=sample:pairs", "--image_size=64", "--patch_size=8", "--seconds=0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "vlbeit_jax.benchmark_input", *options],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["pipeline"]["per_core_second"] < found["decode"]["per_core_second"]
