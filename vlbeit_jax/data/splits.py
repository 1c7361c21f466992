"""Nothing that is held back is trained on, in whichever of several sets it stands."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vlbeit_jax.data.identity import KEYS, TRAIN, VALIDATION
from vlbeit_jax.data.keys import NONE, Keys, common, merged
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind

SEEN_FOLDER = "trained_on"
Seen = Mapping[str, np.ndarray]  # By kind of key: the keys, in rising order.
NOTHING_SEEN: Seen = {what: NONE[0] for what in KEYS}


def require_apart(sets: Sequence[PreparedSet]) -> None:
    """Checks that no set holds back what another one trains on; the sets of all streams of a run belong here.

    Raises:
      UsageError: one does; it names both, how many, an example and what to do.
    """
    different = list({found.fingerprint: found for found in sets}.values())
    for held in different:
        for trained in different:
            if held is trained:
                continue
            for what in KEYS:
                both = common(held.keys(what, VALIDATION), trained.keys(what, TRAIN)[0])
                if both.shape[1]:
                    raise UsageError(
                        f"{held.folder} holds back {both.shape[1]} {what} that are in the training part of {trained.folder} "
                        f"({example(held, VALIDATION, both)}), so its held-back figures would be of seen data; "
                        f"{remedy(held, trained)}, or leave one of the two out"
                    )


def example(found: PreparedSet, split: str, keys: Keys) -> str:
    """Words that lead to the first of some keys of a set."""
    if found.kind is Kind.TOKENS:
        return f"for example packed document {int(keys[1, 0])}, hash {int(keys[0, 0]):016x}"
    identity = found.records(split)[int(keys[1, 0])]["id"]
    return f"for example record {identity.decode()!r}"


def remedy(held: PreparedSet, trained: PreparedSet) -> str:
    """How to prepare a set so that it goes with another one."""
    if held.kind is Kind.TOKENS:
        return f"prepare its texts again with --apart_from={trained.folder} and pack them again"
    return f"prepare it again with --apart_from={trained.folder}"


def seen_by(sets: Sequence[PreparedSet]) -> Seen:
    """What a model that is trained on these sets sees."""
    return {what: merged(each.keys(what, TRAIN) for each in sets) for what in KEYS}


def write_seen(run: pathlib.Path, seen: Seen) -> None:
    """Keeps it in a run's folder: the sets may be gone when the model is evaluated. Eight bytes a picture or text."""
    folder = run / SEEN_FOLDER
    folder.mkdir(exist_ok=True)
    for what, keys in seen.items():
        np.save(folder / f"{what}.npy", keys)


def read_seen(run: pathlib.Path) -> Seen:
    """What ``write_seen`` has left.

    Raises:
      UsageError: it is not there.
    """
    found = {}
    for what in KEYS:
        path = run / SEEN_FOLDER / f"{what}.npy"
        try:
            found[what] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}), so it is not known what the run was trained on; copy the run again, "
                "with everything in it, or train it again"
            ) from error
    return found


def seen_records(found: PreparedSet, split: str, seen: Seen) -> tuple[str, Keys]:
    """Which pictures, or else which texts, of a split a model has seen; the first kind of which there are any."""
    for what in KEYS:
        both = common(found.keys(what, split), seen[what])
        if both.shape[1]:
            return what, both
    return "", NONE
