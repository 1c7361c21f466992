"""One traced and compiled train step for all runs with equal configurations."""

import contextlib
import functools
from collections.abc import Iterator

import pytest

from vlbeit_jax.runtime import start
from vlbeit_jax.training.step import TrainStep


@contextlib.contextmanager
def kept_steps() -> Iterator[None]:
    """Lets the runs of its body share steps, which are pure functions of configuration and mesh.

    Tracing a step takes seconds. Each run still reads its own checkpoint, and compiles as far as it
    knows. Runs in processes of their own share nothing (``tests/runtime/test_resume.py``). Not for
    tests that patch what is traced.
    """
    made = functools.cache(start.step_and_state)

    def step_and_state(task, config, mesh):
        step, maker = made(task, config, mesh)
        # JAX remembers what it has traced and compiled by the jitted function.
        return TrainStep(step._step, mesh), maker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "step_and_state", step_and_state)
        yield
