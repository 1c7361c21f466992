"""Checks that nothing that one set holds out is trained on, in this set or in another."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vlbeit_jax.data.identity import HELD_OUT, KEYS, TRAIN
from vlbeit_jax.data.keys import NONE, Keys, common, merged
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import appearing, fetched
from vlbeit_jax.types import Kind

# In the folder of a run: keys of what it trains on, and of what its start was trained on.
SEEN_FOLDER, STARTED_FROM = "trained_on", "start_trained_on"
Seen = Mapping[str, np.ndarray]  # By kind of key: the sorted keys.
NOTHING_SEEN: Seen = {what: NONE[0] for what in KEYS}


def require_apart(sets: Sequence[PreparedSet]) -> None:
    """Checks that no set holds out what another one trains on.

    Args:
      sets: those of all streams of a run.

    Raises:
      UsageError: one does. The message names both sets, how many pictures or texts they share, an
        example and what to do.
    """
    different = list({prepared.fingerprint: prepared for prepared in sets}.values())
    for held in different:
        for trained in different:
            if held is trained:
                continue
            for split, what in itertools.product(HELD_OUT, KEYS):
                both = common(held.keys(what, split), trained.keys(what, TRAIN)[0])
                if both.shape[1]:
                    raise UsageError(
                        f"{held.folder} holds out {both.shape[1]} {what} that are in the "
                        f"training part of {trained.folder} ({example(held, split, both)}), "
                        "so its held-out results would be results on training data; "
                        f"{remedy(held, trained)}, or use only one of the two sets"
                    )


def example(prepared: PreparedSet, split: str, keys: Keys) -> str:
    """Names the record, or the packed document, of the first of these keys of a set."""
    if prepared.kind is Kind.TOKENS:
        return f"for example packed document {int(keys[1, 0])}, hash {int(keys[0, 0]):016x}"
    identity = prepared.records(split)[int(keys[1, 0])]["id"]
    return f"for example record {identity.decode()!r}"


def remedy(held: PreparedSet, trained: PreparedSet) -> str:
    """Says how to prepare a set so that it can be used with another one."""
    if held.kind is Kind.TOKENS:
        return f"prepare its texts again with --apart_from={trained.folder} and pack them again"
    return f"prepare it again with --apart_from={trained.folder}"


def seen_by(sets: Sequence[PreparedSet]) -> Seen:
    """Returns the keys of what a model sees if it is trained on these sets."""
    return {what: merged(each.keys(what, TRAIN) for each in sets) for what in KEYS}


def write_seen(run: pathlib.Path, seen: Seen, name: str = SEEN_FOLDER) -> None:
    """Writes the keys into a run's folder: 8 bytes per picture or text.

    The sets may be gone when the model is evaluated.
    """
    folder = run / name
    folder.mkdir(exist_ok=True)
    for what, keys in seen.items():
        with appearing(folder / f"{what}.npy", "wb") as out:
            np.save(out, keys)


def read_seen(run: pathlib.Path, name: str = SEEN_FOLDER) -> Seen:
    """Reads what ``write_seen`` wrote.

    Raises:
      UsageError: a file is missing or cannot be read.
    """
    seen = {}
    for what in KEYS:
        path = run / name / f"{what}.npy"
        try:
            seen[what] = np.load(fetched(path), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}), so it is not known what the run was trained "
                "on; copy the run's whole folder "
                "again, or train the run again"
            ) from error
    return seen


def seen_records(prepared: PreparedSet, split: str, seen: Seen) -> tuple[str, Keys]:
    """Finds the pictures of a split that a model has seen, or else the texts.

    Returns:
      The kind of the keys, and the keys; an empty kind if the model has seen none of them.
    """
    for what in KEYS:
        both = common(prepared.keys(what, split), seen[what])
        if both.shape[1]:
            return what, both
    return "", NONE
