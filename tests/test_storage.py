"""A full or failing disk, or a bucket that does not answer, becomes one message with its code."""

import errno
import os
import shutil
import tempfile

import pytest
from jax.errors import JaxRuntimeError

from vlbeit_jax import cli
from vlbeit_jax.errors import BadData, Damaged, Exit, StorageError, UsageError
from vlbeit_jax.folders import locked
from vlbeit_jax.places import place
from vlbeit_jax.storage import explains_storage, unmasked
from vlbeit_jax.training.leaves import read_files


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


@pytest.mark.parametrize(
    "raised",
    [
        PermissionError(errno.EACCES, "Permission denied", "run/metrics.jsonl"),
        ValueError("PERMISSION_DENIED: run/metrics.jsonl [os_error_code='13']"),
    ],
    ids=["Python", "TensorStore"],
)
def test_a_file_of_another_user_is_no_damage_and_no_full_disk(tmp_path, raised):
    """No file is moved aside as damaged because this user may not read it."""

    def read():
        raise raised

    said = f"Permission denied for user {os.getuid()}; give this user the right to read and write"
    with pytest.raises(UsageError, match=said), explains_storage(tmp_path):
        read()
    with pytest.raises(UsageError, match=said):
        read_files(tmp_path, "its arrays", read)


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
        OSError(errno.ENODEV, "No such device"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ValueError("UNKNOWN: Error reading: [OS error 116: ESTALE Stale file handle]"),
        ValueError("UNKNOWN: Failed to open [os_error_code='24']"),
    ],
    ids=lambda error: errno.errorcode.get(getattr(error, "errno", 0), "TensorStore"),
)
def test_storage_that_is_away_is_no_damage(tmp_path, raised):
    """A step is not moved aside for it, and launch scripts start the run again."""

    def read():
        raise raised

    with pytest.raises(StorageError, match=f"{tmp_path / '8'} .*run the same command again"):
        read_files(tmp_path / "8", "its arrays", read)


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("DATA_LOSS: no manifest"),
        KeyError("a"),
        EOFError(),
        OSError(errno.EIO, "Input/output error"),
        ValueError("DATA_LOSS: Error reading: [OS error 5: EIO Input/output error]"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_or_unreadable_is_damage(tmp_path, raised):
    """One place of a disk may be bad (EIO), so the step before is worth a try."""

    def read():
        raise raised

    with pytest.raises(Damaged, match="its arrays cannot be read"):
        read_files(tmp_path, "its arrays", read)


def test_full_memory_is_no_damage(tmp_path):
    def read():
        raise MemoryError

    with pytest.raises(MemoryError):
        read_files(tmp_path, "its arrays", read)


# As the library of gcsfs has it.
ClientError = type("ClientError", (Exception,), {"__module__": "aiohttp.client_exceptions"})
GONE = "ABORTED: All 32 retry attempts failed: CURL error Could not connect to server"
REFUSED = "PERMISSION_DENIED: Forbidden [http_response_code='403']"


@pytest.mark.parametrize(
    ("raised", "seen", "said"),
    [
        (ValueError(GONE), StorageError, "has failed .*; run the same command again when"),
        (ClientError("gone"), StorageError, "has failed .*ClientError: gone"),
        (ValueError(REFUSED), UsageError, "access is refused .* gcloud auth application-default"),
    ],
    ids=["away", "away for gcsfs", "refused"],
)
def test_a_bucket_that_does_not_answer_is_no_damage_and_no_defect(raised, seen, said):
    step = place("gs://bucket/run/checkpoints/8")

    def fails():
        raise raised

    with pytest.raises(seen, match=f"^{step}: .*{said}"):
        read_files(step, "its arrays", fails)
    with pytest.raises(seen, match=f"^{step}: .*{said}"), explains_storage(step):
        fails()


@pytest.mark.parametrize(
    "raised",
    [JaxRuntimeError("UNAVAILABLE: Gloo: connection closed by peer"), ConnectionResetError("peer")],
)
def test_a_lost_process_of_a_run_in_a_bucket_is_not_a_bucket_that_is_away(raised):
    with pytest.raises(type(raised)), explains_storage(place("gs://bucket/run")):
        raise raised


def test_a_full_disk_on_the_way_to_a_bucket_is_named(tmp_path):
    """A file for a bucket is made in TMPDIR."""
    raised = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "staging" / "file"))
    with pytest.raises(StorageError, match=f"the disk of {tmp_path}/staging/file is full .*MB are"):
        with explains_storage(place("gs://bucket/run")):
            raise raised
    with pytest.raises(StorageError, match=f"the disk of {tempfile.gettempdir()} is full"):
        with explains_storage(place("gs://bucket/run")):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("other", [FileNotFoundError(errno.ENOENT, "no"), ValueError("28")])
def test_other_errors_stay_as_they_are(tmp_path, other):
    with pytest.raises(type(other)), explains_storage(tmp_path):
        raise other


@pytest.mark.parametrize("made", [UsageError, BadData])
def test_a_mistake_behind_which_a_disk_fails_is_the_disks(made):
    """Launch scripts do not start a command again after a mistake or bad data."""

    def told(cause):
        error = made("tokenizer.json cannot be read")
        error.__cause__ = cause
        return unmasked(error)

    for number in (errno.EIO, errno.ESTALE, errno.ENOSPC):
        found = told(OSError(number, "x"))
        assert found.code == Exit.STORAGE and str(found).startswith("tokenizer.json cannot be read")
        assert str(found).endswith("run the same command again")
    unmounted = OSError(errno.ENOTCONN, "Transport endpoint is not connected", "tokenizer.json")
    assert told(unmounted).code == Exit.STORAGE
    for other in (
        None,
        FileNotFoundError(errno.ENOENT, "x"),
        OSError(errno.EROFS, "x"),
        KeyError(),
    ):
        assert told(other).code == made.code
    assert told(OSError(errno.ENOTCONN, "a socket")).code == made.code
    assert told(PermissionError(errno.EACCES, "x")).code == made.code


def test_a_command_ends_with_the_code_of_the_disk(capsys):
    def main():
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError as error:
            raise UsageError("vocab.txt cannot be read") from error

    with pytest.raises(SystemExit) as ended:
        cli._without_traceback(main)
    assert ended.value.code == Exit.STORAGE and "the disk fails: see" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (OSError(errno.EIO, "x", "a/metrics.jsonl"), 74, "disk of a/metrics.jsonl fails: Input/"),
        (OSError(errno.EIO, "x"), 74, "error: a disk that this command uses fails: Input/output"),
        (OSError(errno.ENOSPC, "x", "a/b"), 74, "the disk of a/b is full ("),
        (PermissionError(errno.EACCES, "x", "a/b"), 2, "a/b: Permission denied for user"),
    ],
    ids=["a file", "an open file", "full", "another user's"],
)
def test_no_command_ends_with_a_traceback_of_the_disk(capsys, raised, code, said):
    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        cli._without_traceback(main)
    assert ended.value.code == code and said in capsys.readouterr().err


def test_a_missing_file_that_nobody_has_explained_is_a_defect():
    def main():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a")

    with pytest.raises(FileNotFoundError):
        cli._without_traceback(main)


def test_a_lock_for_which_there_is_no_room_leaves_no_file(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(StorageError, match="is full"):
        full.setattr("vlbeit_jax.folders.os.write", no_room)
        with locked(tmp_path / "out"):
            pass
    assert not list(tmp_path.iterdir())
