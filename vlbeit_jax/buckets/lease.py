"""A claim on a place in a bucket, which expires unless its process renews it.

A bucket has no locks. The claim is an object that only one process can create. Its process renews
it every few seconds. A claim that is not renewed for ``EXPIRES`` seconds belongs to a process that
is gone, and the first to remove exactly this claim may create its own. No clocks are compared.
"""

import contextlib
import glob
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

from vlbeit_jax.buckets.path import JSON, BucketPath
from vlbeit_jax.errors import Exit, Reported

EXPIRES, RENEWED_EVERY, LOOKED_EVERY = 60.0, 15.0, 2.0  # Seconds.
ENDED = "ZX"  # States of a process that only its parent still remembers.


@contextlib.contextmanager
def leased(place: BucketPath, *, shared: bool = False) -> Iterator[None]:
    """Holds the claim ``place`` while the body runs.

    Args:
      place: of the claim's object.
      shared: whether processes that also pass True may hold it too. Each of them has an object of
        its own beside ``place``.

    Raises:
      BlockingIOError: another process holds it; the error says which.
    """
    own = place.with_name(f"{place.name}.{uuid.uuid4().hex}") if shared else place
    generation = _claimed(own)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(own, generation, ended), daemon=True)
    renewing.start()
    try:
        # After its own claim: of two processes that come together, at least one sees the other.
        theirs = f"{glob.escape(place.name)}.*"
        for other in [place] if shared else place.parent.glob(theirs):
            with contextlib.suppress(FileNotFoundError):
                _remove_expired(other)
        yield
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            own.request("DELETE", ifGenerationMatch=generation)


def _claimed(place: BucketPath) -> str:
    """Creates the claim; returns the generation of its object."""
    mine = json.dumps(_this_process() | {"claim": uuid.uuid4().hex}).encode()
    while True:
        try:
            place.write_bytes(mine, new=True)
        except FileExistsError:
            # A request that was repeated finds the claim that it has made.
            with contextlib.suppress(FileNotFoundError):
                if place.read_bytes() != mine:
                    _remove_expired(place)
        with contextlib.suppress(FileNotFoundError):
            facts = place.facts()
            if place.read_bytes() == mine:
                return facts["generation"]


def _remove_expired(place: BucketPath) -> None:
    """Removes the claim of a process that is gone; waits until that is certain.

    Raises:
      BlockingIOError: its process is alive.
      FileNotFoundError: it has been removed.
    """
    facts = place.facts()
    holder = _parsed(place.read_bytes())
    named = f"{holder.get('process', 'unknown')} on {holder.get('host', 'an unknown host')}"
    if not _is_dead(holder):
        print(
            f"{place}: held by process {named}; if it gives no sign of life for {EXPIRES:.0f} "
            "seconds, this process goes on in its place",
            file=sys.stderr,
        )
        deadline = time.monotonic() + EXPIRES
        while time.monotonic() < deadline:
            time.sleep(LOOKED_EVERY)
            if _sign(place.facts()) != _sign(facts):
                raise BlockingIOError(named)
    with contextlib.suppress(FileExistsError):
        place.request("DELETE", ifGenerationMatch=facts["generation"])


def _renew(place: BucketPath, generation: str, ended: threading.Event) -> None:
    """Renews a claim until ``ended``; ends the process if the claim is lost."""
    number, renewed = 0, time.monotonic()
    while not ended.wait(RENEWED_EVERY):
        number += 1
        try:
            place.request(
                "PATCH",
                ifGenerationMatch=generation,
                headers=JSON,
                json={"metadata": {"renewed": str(number)}},
            )
            renewed = time.monotonic()
        except (FileNotFoundError, FileExistsError):
            _end(f"{place}: another process has taken over, because this one stood still")
        except Reported as error:
            if time.monotonic() - renewed > EXPIRES - RENEWED_EVERY:
                _end(f"{error}; the claim cannot be renewed, so that another process may take over")


def _end(why: str) -> NoReturn:
    """Ends the process at once: whatever it still wrote would harm what the other one writes."""
    print(f"error: {why}", file=sys.stderr, flush=True)
    os._exit(Exit.STORAGE)


def _sign(facts: dict[str, Any]) -> object:
    return facts["generation"], (facts.get("metadata") or {}).get("renewed")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), **_birth(os.getpid())}


def _birth(process: int | str) -> dict[str, str]:
    """Returns what no later process has in common with it: boot, namespace and start.

    Raises:
      ProcessLookupError: there is no such process in this namespace, or it has ended.
    """
    proc = pathlib.Path("/proc")
    try:
        status = (proc / str(process) / "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError as error:
        raise ProcessLookupError(process) from error
    if status[0] in ENDED:
        raise ProcessLookupError(process)
    return {
        "boot": (proc / "sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink(proc / "self/ns/pid"),
        "start": status[19],
    }


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a process was one of this machine, and is gone."""
    here = _birth(os.getpid())
    if any(holder.get(name) != here[name] for name in ("boot", "namespace")):
        return False
    try:
        return _birth(holder.get("process", 0))["start"] != holder.get("start")
    except ProcessLookupError:
        return True
