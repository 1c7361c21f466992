"""Files in a bucket that grow: what is added to them is written a few times a minute.

A bucket takes about one write a second of an object, and each is paid for. So lines wait in memory
for up to ``DELAY`` seconds, unless ``settle`` is called. A process that is killed loses these.
"""

import threading

from vlbeit_jax.buckets.path import JSON, BucketPath
from vlbeit_jax.errors import StorageError

DELAY = 10.0  # Seconds.


class _Waiting:
    """What has been added and not written yet, by path."""

    def __init__(self) -> None:
        self.content: dict[BucketPath, bytes] = {}
        self.lock, self.writing = threading.Lock(), threading.Lock()
        self.timer: threading.Timer | None = None
        self.failed: Exception | None = None


_waiting = _Waiting()


def append(path: BucketPath, content: bytes) -> None:
    """Adds to the end of a file, at the latest after ``DELAY`` seconds.

    Raises:
      StorageError: what was added before could not be written.
    """
    _raise_failure()
    with _waiting.lock:
        _waiting.content[path] = _waiting.content.get(path, b"") + content
        if _waiting.timer is None:
            _waiting.timer = threading.Timer(DELAY, _write_late)
            _waiting.timer.daemon = True
            _waiting.timer.start()


def settle() -> None:
    """Writes what waits. Returns when it is in the bucket.

    What could not be written waits again, before what is added from now on. A file that fails does
    not keep the others from being written.

    Raises:
      StorageError: something could not be written; of several errors, the first.
    """
    _raise_failure()
    failures: list[Exception] = []
    with _waiting.writing:  # In the order in which it was added.
        with _waiting.lock:
            content, _waiting.content = _waiting.content, {}
            if _waiting.timer is not None:
                _waiting.timer.cancel()
                _waiting.timer = None
        for path, added in content.items():
            try:
                extend(path, added)
            except Exception as error:
                failures.append(error)
                with _waiting.lock:
                    _waiting.content[path] = added + _waiting.content.get(path, b"")
    if failures:
        raise failures[0]


def _write_late() -> None:
    try:
        settle()
    except Exception as error:  # Raised by the next call, in the thread of whoever adds.
        _waiting.failed = error


def _raise_failure() -> None:
    failed, _waiting.failed = _waiting.failed, None
    if failed is not None:
        raise failed


def extend(path: BucketPath, content: bytes) -> None:
    """Adds to the end of an object, of which this process is the only writer.

    The store joins two objects, so the cost does not grow with the size. A request that is repeated
    because its answer was lost adds nothing again.

    Raises:
      StorageError: another process has written it in between.
    """
    try:
        before = path.facts()
    except FileNotFoundError:
        path.write_bytes(content)
        return
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    joined = [{"name": "/".join(each.parts[2:])} for each in (path, part)]
    kind = {"contentType": before.get("contentType", "application/octet-stream")}
    try:
        path.request(
            "POST",
            "/compose",
            ifGenerationMatch=before["generation"],
            headers=JSON,
            json={"sourceObjects": joined, "destination": kind},
        )
    except FileExistsError as error:
        if path.facts()["size"] != before["size"] + len(content):
            raise StorageError(f"{path}: another process writes it as well") from error
    part.unlink(missing_ok=True)
