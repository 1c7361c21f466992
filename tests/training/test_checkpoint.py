"""Checkpoints: which ones are kept, and saves that were cut off."""

import contextlib
import time

import numpy as np
import pytest

from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_step import FORMAT


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


def test_a_checkpoint_states_its_format_and_a_newer_one_is_refused(tmp_path):
    newer = {"format": FORMAT + 1, "versions": {"vlbeit_jax": "9.1+abc"}}
    with contextlib.closing(Checkpointer(tmp_path, keep_last=2)) as checkpointer:
        for step, description in ((1, {}), (2, newer)):
            checkpointer.save(step, {"params": {"a": np.ones(2)}}, description)
        checkpointer.wait()
        assert checkpointer.describe(1)["format"] == FORMAT == checkpointer.format(1)
        assert checkpointer.leaves(1, "params").shapes == {"a": (2,)}
        message = f"2 has format {FORMAT + 1}, .* up to {FORMAT}; install .*: 9.1"
        with pytest.raises(UsageError, match=message):
            checkpointer.leaves(2, "params")
