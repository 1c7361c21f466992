"""Says whether the recorded steps are the same programs in another checkout.

    python tests/lowered_steps.py OTHER_CHECKOUT

Where the lowered text of a step is the same, so are its results, on every processor and without
running it. Where it differs, results may still be equal: ``tests/training/test_golden.py`` tells on
the kind of machine on which its digests were recorded.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys


def program(config, shape):
    """Returns a digest of the lowered text of a step on a mesh."""
    from tests import tiny
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.tasks.abstract import abstract_step

    mesh = MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2])
    config = dataclasses.replace(config, mesh=mesh)
    step, _, state, frozen, batches = abstract_step(config, tiny.mesh_of(*shape))
    return hashlib.sha256(step.lower(state, frozen, batches).as_text().encode()).hexdigest()[:16]


def programs():
    """Returns it for each case of ``test_golden``, in the checkout of this process."""
    import tests.conftest  # noqa: F401 (eight simulated devices)
    from tests.training.test_golden import CASES

    return {case: program(make(), shape) for case, (make, shape) in CASES.items()}


def programs_of(checkout):
    """Returns it for a checkout, from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=pathlib.Path, nargs="?", help="empty: print digests")
    given = parser.parse_args().checkout
    if given is None:
        print(json.dumps(programs()))
    else:
        own = programs_of(pathlib.Path(__file__).resolve().parents[1])
        other = programs_of(given.resolve())
        differ = [case for case in own if own[case] != other.get(case)]
        print("\n".join(f"differs: {case}" for case in differ) or "all recorded steps are the same")
        sys.exit(bool(differ))
