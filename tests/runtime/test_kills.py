"""A run that is killed again and again ends as one that nobody disturbed, bit for bit.

Texts are trained, and images and pairs where there are many kills. A kill comes at a time that is
drawn: at any step, or within a save. A checkpoint of such a run stands a flipped bit in any of its
files.
"""

import collections
import itertools
import json
import os
import random
import shutil
import time

import jax
import numpy as np
import pytest

from tests import processes, tiny
from tests.runtime.test_resume import assert_equal_bits, weights
from tests.training.test_damage import files, flip
from vlbeit_jax.errors import Damaged, UsageError
from vlbeit_jax.runtime.history import STARTED, read_history
from vlbeit_jax.tasks.abstract import step_and_state
from vlbeit_jax.training.checkpoint import Checkpointer

EVERY = 3
KILLS, MANY_KILLS = 5, 50
FLIPS = 200


def steps_for(kills):
    """Enough for every kill to come before the end; each start is killed within three saves."""
    return 3 * EVERY * kills


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """From a number of kills to a run that nobody kills, and its configuration."""
    made = {}

    def run(kills):
        if kills not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            values = tiny.pretrain_config(
                world,
                # One program, so that a start is quick; that of texts takes a third of the time.
                schedule="text" if kills == KILLS else "image+pair",
                steps=steps_for(kills),
                checkpoint_every=EVERY,
                log_every=EVERY,
            )
            config = tiny.config_file(values, folder)
            arguments = (f"--config={config}", f"--workdir={folder / 'run'}")
            done = tiny.command("vlbeit_jax.main", *arguments, timeout=900)
            assert done.returncode == 0, done.stderr
            made[kills] = (folder / "run", config, values)
        return made[kills]

    return run


class Killed:
    """Starts of a run, each of which is killed at a time that is drawn."""

    def __init__(self, config, workdir, seed):
        self.workdir, self.random, self.in_saves = workdir, random.Random(seed), 0
        self.line = ["-m", "vlbeit_jax.main", f"--config={config}", f"--workdir={workdir}"]

    def start(self):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
        return processes.begin(*self.line, environment=os.environ | {"XLA_FLAGS": flags})

    def kill_once(self):
        """Starts the run, and kills it after a new step was saved; returns whether it could."""
        process, before = self.start(), self.steps()
        try:
            while process.is_running and self.steps() <= before:
                time.sleep(0.002)
            if self.random.random() < 0.5:  # While the next step is saved.
                while process.is_running and not self.unfinished():
                    time.sleep(0.0005)
            time.sleep(self.random.expovariate(1 / 0.02))
        finally:
            killed = process.is_running
            process.kill()
        self.in_saves += bool(self.unfinished())
        assert len(self.unfinished()) <= 1, self.unfinished()
        return killed

    def steps(self):
        folder = self.workdir / "checkpoints"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def unfinished(self):
        return [path for path in self.workdir.glob("checkpoints/*tmp*") if path.is_dir()]


@pytest.mark.parametrize(
    "kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)], ids=str
)
def test_kills_change_no_bit_of_the_end(undisturbed, tmp_path, kills):
    wanted, config, _ = undisturbed(kills)
    run = Killed(config, tmp_path / "run", seed=kills)
    done = sum(run.kill_once() for _ in range(kills))
    assert done == kills, "the run has ended before it was killed often enough"
    end = run.start().ended(900)
    assert end.returncode == 0, end.stderr
    last = steps_for(kills)
    assert_equal_bits(weights(run.workdir, last), weights(wanted, last))
    lines = [
        [
            {name: line[name] for name in line if name == "step" or name.endswith("/loss")}
            for line in tiny.metrics_of(each)
        ]
        for each in (run.workdir, wanted)
    ]
    assert lines[0] == lines[1] and not run.unfinished()
    assert len(lines[0]) == last // EVERY and all(len(line) > 1 for line in lines[0])
    history = read_history(run.workdir)
    starts = [each["step"] for each in history if each["event"] == STARTED]
    assert len(starts) == kills + 1 and all(a < b for a, b in itertools.pairwise(starts[1:]))
    print(f"{kills} kills, {run.in_saves} of them within a save, starts at {starts}")


@pytest.mark.slow  # Twenty flips of a smaller step are in tests/training/test_damage.py.
def test_no_flipped_bit_of_a_run_is_silent(undisturbed, tmp_path):
    """In every file of a step, more often in the larger ones; read as the run reads it."""
    saved, _, config = undisturbed(MANY_KILLS)
    last = steps_for(MANY_KILLS)
    step = saved / "checkpoints" / str(last)
    copy = tmp_path / "checkpoints" / str(last)
    shutil.copytree(step, copy)
    _, (_, abstract) = step_and_state(config.task.resolve(), config, tiny.mesh_of())

    def read():
        checkpointer = Checkpointer(tmp_path / "checkpoints", read_only=True)
        state = checkpointer.restore_state(last, abstract)
        leaves = jax.tree_util.tree_leaves_with_path(state.saved())
        found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        said = json.dumps(checkpointer.describe(last), sort_keys=True)
        return found | {"description": np.frombuffer(said.encode(), np.uint8)}

    wanted, counts = read(), collections.Counter()
    names = [path.relative_to(step) for path in files(step)]
    sizes = [(step / name).stat().st_size for name in names]
    draw = random.Random(FLIPS)
    for name in [*names, *draw.choices(names, sizes, k=FLIPS)][:FLIPS]:
        flip(copy / name, draw.randrange((copy / name).stat().st_size), draw.randrange(8))
        try:
            assert_equal_bits(read(), wanted)
            counts["harmless"] += 1
        except (Damaged, UsageError):
            counts["detected"] += 1
        shutil.copy(step / name, copy / name)
    print(f"{FLIPS} flips in {len(names)} files: {dict(counts)}")
    assert counts.total() == FLIPS and counts["detected"] >= FLIPS // 2, counts
