"""Records that are there twice: byte-equal pictures, equal texts, and pictures that look alike.

Pictures look alike if their difference hashes (``pictures.look_of``) differ in at most
``DISTANCE`` of 128 bits. The hash takes ten lines with OpenCV. ImageHash would bring SciPy and
PyWavelets along for it, and imagededup PyTorch.

We chose the numbers on the sample's clip art (3,116 pictures of 96 x 96 pixels). Of 400 of them,
98% to 99% are found again in JPEG quality 50, at half the size and at four times the size, and 8%
of all look like another one. With 64 bits and no margin for noise, the usual dHash finds 50% to 96%
at the same distance, and 18% look like another one.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from vlbeit_jax.data.identity import HELD_OUT, PICTURES, TEXTS, TRAIN
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.places import fetched
from vlbeit_jax.prepare.merge import Edits, Merged
from vlbeit_jax.prepare.pictures import Dropped, Limits, examined
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Bool, Int, UInt
from vlbeit_jax.types import Kind

# Whose records have one picture each, and no other record of it by design.
OF_PICTURES = (Kind.IMAGES, Kind.PAIRS, Kind.LABELLED_IMAGES)
DISTANCE = 3
# Two hashes that differ in at most three bits are equal in one of four parts; and in one of four
# parts of the rest. A part alone would not do: that of a plain sky is the same in many pictures.
BANDS = 16
LOOKS_FILE = "looks-{}.npy"
Looks = UInt[np.ndarray, "n 2"]
NO_LOOKS = np.zeros((0, 2), np.uint64)


def exact(merged: Merged, kind: Kind) -> dict[str, tuple[Int[np.ndarray, " d"], ...]]:
    """Returns, by split, numbers of records and of the first records that are equal to them."""
    what = PICTURES if kind in OF_PICTURES else TEXTS if kind is Kind.TEXTS else ""
    repeated = {}
    for split in merged.splits if what else ():
        keys, numbers = merged.keys(what, split)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        owner = numbers[first[inverse]]
        later = owner != numbers
        repeated[split] = (numbers[later], owner[later])
    return repeated


def merge_exact(merged: Merged, kind: Kind, edits: dict[str, Edits]) -> int:
    """Removes equal records; the first of them gets the captions of the others.

    Returns:
      How many records were removed.
    """
    gone = 0
    for split, (numbers, owners) in exact(merged, kind).items():
        edits[split].kept[numbers] = False
        gone += len(numbers)
        if kind is Kind.PAIRS:
            for number, owner in zip(numbers.tolist(), owners.tolist(), strict=True):
                edits[split].joined.setdefault(owner, []).append(number)
    return gone


def near(merged: Merged, edits: dict[str, Edits]) -> dict[str, Int[np.ndarray, " d"]]:
    """Returns, by split, numbers of records that look like one before them.

    Training comes first, so of two records that look alike, one trained on and one held out, the
    held-out one is found. Byte-equal pictures count as well, unless they were removed.
    """
    splits = [split for split in merged.splits if len(merged.looks(split))]
    kept = {split: np.flatnonzero(edits[split].kept) for split in splits}
    looks = [merged.looks(split)[kept[split]] for split in splits]
    is_later, start, by_split = _later(np.concatenate([NO_LOOKS, *looks])), 0, {}
    for split in splits:
        stop = start + len(kept[split])
        by_split[split] = kept[split][is_later[start:stop]]
        start = stop
    return by_split


def near_others(
    merged: Merged, edits: dict[str, Edits], sets: Sequence[PreparedSet]
) -> dict[str, Int[np.ndarray, " d"]]:
    """Returns, by split, numbers of records that look like one on the other side of other sets."""
    by_split = {}
    for split in merged.splits:
        opposite = HELD_OUT if split == TRAIN else (TRAIN,)
        others = [looks_of(each, name) for each in sets for name in opposite if each.count(name)]
        kept = np.flatnonzero(edits[split].kept)
        ours = merged.looks(split)
        ours = ours[kept] if len(ours) else NO_LOOKS
        if len(others) and len(ours):
            by_split[split] = kept[alike(ours, np.concatenate(others))]
    return by_split


def looks_of(prepared: PreparedSet, split: str) -> Looks:
    """Returns what the pictures of a set look like; they are read unless the set states it."""
    path = prepared.folder / LOOKS_FILE.format(split)
    if path.is_file():
        return np.load(fetched(path))
    if prepared.kind in (Kind.TEXTS, Kind.TOKENS, Kind.LABELLED_TEXTS):
        return NO_LOOKS
    records = prepared.records(split)
    shown = counted(range(len(records)), f"looking at {prepared.name}", "pictures", len(records))
    limits = Limits().of_benchmark()
    looks = []
    for number in shown:
        try:
            looks.append(examined(records[number]["image"], limits).look)
        except Dropped:
            continue  # It was prepared with other limits, and looks like nothing here.
    return np.array(looks, np.uint64).reshape(-1, 2)


def alike(some: Looks, others: Looks) -> Bool[np.ndarray, " n"]:
    """Returns which of ``some`` look like any of ``others``."""
    is_alike = np.zeros(len(some), bool)
    values = np.unique(others, axis=0)
    for band in range(BANDS):
        ours, theirs = _band(some, band), _band(values, band)
        order = np.argsort(theirs, kind="stable")
        start = np.searchsorted(theirs[order], ours, "left")
        stop = np.searchsorted(theirs[order], ours, "right")
        for mine, other in _candidates(start, stop):
            close = _distance(some[mine], values[order[other]]) <= DISTANCE
            is_alike[mine[close]] = True
    return is_alike


def _later(looks: Looks) -> Bool[np.ndarray, " n"]:
    """Returns which of them look like an earlier one."""
    values, first, inverse = np.unique(looks, axis=0, return_index=True, return_inverse=True)
    later = first[inverse] != np.arange(len(looks))
    # Of values that are close, the one that comes first in the set stands for all.
    earlier = np.full(len(values), False)
    for band in range(BANDS):
        bits = _band(values, band)
        order = np.argsort(bits, kind="stable")
        start = np.searchsorted(bits[order], bits, "left")
        stop = np.searchsorted(bits[order], bits, "right")
        for mine, other in _candidates(start, stop):
            theirs = order[other]
            close = (_distance(values[mine], values[theirs]) <= DISTANCE) & (
                first[theirs] < first[mine]
            )
            earlier[mine[close]] = True
    return later | earlier[inverse]


def _band(looks: Looks, band: int) -> UInt[np.ndarray, " n"]:
    """Returns 56 bits: one of four parts of 32, and one of four parts of the other 96."""
    high, low = np.uint64(32), np.uint64(2**32 - 1)
    parts = [each for half in looks.T for each in (half >> high, half & low)]
    first = parts.pop(band // 4)
    # The others are 96 bits in three numbers; they are cut into four times 24 bits.
    start, shift = divmod(24 * (band % 4), 32)
    pair = parts[start] << high
    if start + 1 < len(parts):
        pair |= parts[start + 1]
    second = (pair >> np.uint64(64 - 24 - shift)) & np.uint64(2**24 - 1)
    return (first << np.uint64(24)) | second


def _candidates(
    start: Int[np.ndarray, " n"], stop: Int[np.ndarray, " n"], at_once: int = 4_000_000
) -> Iterator[tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"]]]:
    """Yields pairs of an index and each place of its range, so many at once."""
    sizes = stop - start
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + at_once, "right")))
        size = sizes[begin:end]
        mine = np.repeat(np.arange(begin, end), size)
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield mine, np.repeat(start[begin:end], size) + within
        begin = end


def _distance(some: Looks, others: Looks) -> Int[np.ndarray, " n"]:
    return np.bitwise_count(some ^ others).sum(axis=1)
