"""Checkpoints: which ones are kept, and saves that were cut off."""

import time

import numpy as np
import pytest

from vlbeit_jax.training.checkpoint import Checkpointer


@pytest.mark.parametrize(
    ("last", "every", "kept"), [(2, 0, [5, 6]), (1, 3, [3, 6]), (2, 4, [4, 5, 6])]
)
def test_newest_and_every_multiple_are_kept(tmp_path, last, every, kept):
    checkpointer = Checkpointer(tmp_path, last, every)
    for step in range(1, 7):
        checkpointer.save(step, {"x": {"a": np.full(2, step)}}, {})
    checkpointer.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == kept


def test_a_cut_off_save_is_cleaned_up_and_does_not_count(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, {"x": {"a": np.ones(2)}}, {})
    checkpointer.close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    again = Checkpointer(tmp_path)
    assert again.latest() == 1
    again.close()
    patience = time.monotonic() + 20  # It is removed in the background.
    while (tmp_path / "2.orbax-checkpoint-tmp").exists() and time.monotonic() < patience:
        time.sleep(0.05)
    assert not (tmp_path / "2.orbax-checkpoint-tmp").exists()
