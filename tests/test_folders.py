"""A folder appears whole or not at all."""

import errno
import shutil

import pytest

from vlbeit_jax.errors import StorageError, UsageError
from vlbeit_jax.folders import SAMPLE_FOLDER, explains_storage, published, run_folder


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UsageError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full", "broken", "Ctrl-C"],
)
def test_nothing_is_left_of_what_was_cut_off(tmp_path, raised, seen):
    """A full disk is the user's to mend, and told in one message."""
    with pytest.raises(
        seen,
        match="No space left on device, and nothing is left of it" if seen is UsageError else None,
    ):
        with published(tmp_path / "out") as folder:
            (folder / "half").write_bytes(b"1")
            raise raised
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_become_it_and_a_full_one_may_not(tmp_path):
    (tmp_path / "out").mkdir()
    for content in (b"1", b"2"):
        if content == b"2":
            with pytest.raises(UsageError, match="out exists already"), published(tmp_path / "out"):
                pass
        else:
            with published(tmp_path / "out") as folder:
                (folder / "whole").write_bytes(content)
        assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"1"]


def test_the_packaged_model_has_a_name(tmp_path):
    """A folder of that name is meant by "./sample"."""
    assert run_folder("sample") == SAMPLE_FOLDER and (SAMPLE_FOLDER / "config.json").is_file()
    assert run_folder("./sample") != SAMPLE_FOLDER and run_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full .* No space left .* make room"),
        (OSError(errno.EIO, "Input/output error"), "fails: Input/output error; see what is wrong"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "is full"),
        (ValueError("RESOURCE_EXHAUSTED: [OS error 28: ENOSPC No space]"), "is full"),
        (ValueError("OUT_OF_RANGE: File too large [os_error_code='27']"), "is full"),
    ],
    ids=["full", "broken", "copying", "TensorStore", "another"],
)
def test_the_error_of_a_disk_is_one_message_that_names_it(tmp_path, raised, said):
    with pytest.raises(StorageError, match=f"the disk of {tmp_path / 'run'} {said}"):
        with explains_storage(tmp_path / "run"):
            try:
                raise raised
            except Exception as error:
                raise RuntimeError("while saving") from error


@pytest.mark.parametrize("other", [FileNotFoundError(errno.ENOENT, "no"), ValueError("28")])
def test_other_errors_stay_as_they_are(tmp_path, other):
    with pytest.raises(type(other)), explains_storage(tmp_path):
        raise other
