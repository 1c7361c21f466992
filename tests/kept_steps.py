"""One traced and compiled train step for all runs with equal configurations."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import pytest

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.runtime import start
from vlbeit_jax.training.step import TrainStep

# What a step does not know of its run: when the run saves, logs and gives up.
OF_THE_LOOP = (
    "log_every",
    "checkpoint_every",
    "evaluate_every",
    "keep_last",
    "bad_records",
    "refused_in_a_row",
    "rollbacks",
    "start_from",
)
DEFAULTS = {name: getattr(RunConfig(), name) for name in OF_THE_LOOP}
made = functools.cache(start.step_and_state)


@contextlib.contextmanager
def kept_steps() -> Iterator[None]:
    """Lets runs share the steps that other tests made, pure functions of configuration and mesh.

    Tracing a step takes seconds. Each run still reads its own checkpoint, and compiles as far as it
    knows. Runs in processes of their own share nothing (``tests/runtime/test_resume.py``). Not for
    tests that patch what is traced.
    """

    def step_and_state(task, config, mesh):
        run = dataclasses.replace(config.run, **DEFAULTS)
        step, maker = made(task, dataclasses.replace(config, run=run), mesh)
        # JAX remembers what it has traced and compiled by the jitted function.
        return TrainStep(step._step, mesh), maker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "step_and_state", step_and_state)
        yield
