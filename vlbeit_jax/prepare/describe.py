"""How a set was made, for its description; and what ``prepare`` prints at its end."""

import datetime
import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import HELD_OUT, TEXTS, TRAIN
from vlbeit_jax.prepare.parts import Part
from vlbeit_jax.prepare.records import ADVICE
from vlbeit_jax.version import __version__

# Whose versions can change the bytes of a set.
LIBRARIES = ("array_record", "opencv-python-headless", "pillow", "protobuf", "tensorflow-datasets")
EXAMPLES = 3
LARGE = 0.05  # Share of the items that is worth a warning.


def provenance() -> dict[str, Any]:
    """Returns the versions that made a set, and the day (UTC).

    The environment variable SOURCE_DATE_EPOCH sets another time, so that all bytes can be repeated.
    """
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromtimestamp(int(stated), datetime.UTC) if stated else None
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "converter": {"vlbeit_jax": __version__, **versions},
        "date": (now or datetime.datetime.now(datetime.UTC)).date().isoformat(),
    }


def summary(meta: Mapping[str, Any], parts: Sequence[Part]) -> Iterator[str]:
    """Yields lines for the user: records as they were read, and what may be wrong."""
    examples = [example for part in _spread(parts) for example in part.examples]
    firsts = [part.examples[0] for part in _spread(parts) if part.examples]
    shown = firsts if len(firsts) >= EXAMPLES else examples
    for example in shown[:EXAMPLES]:
        height, width = example["size"] or (0, 0)
        size = f" {width} x {height} pixels" if height else ""
        said = "; ".join(repr(text) for text in example["said"])
        yield f"  {example['id']}{size}{': ' if said else ''}{said}"
    for warning in warnings(meta):
        yield f"warning: {warning}"


def in_short(meta: Mapping[str, Any]) -> str:
    """Returns the counts of a description, for those who do not read all of it."""
    counts = meta["counts"]
    splits = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    unused = sum(sum(meta.get(name, {}).values()) for name in ("dropped", "left_out"))
    return f"{sum(counts.values()):,} {meta['kind']} ({splits}); {unused:,} not used"


def warnings(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yields what may be wrong with a set, and what to do."""
    counts, items = meta["counts"], meta["items"]
    for split, key_counts in meta["keys"].items():
        if key_counts.get(TEXTS) == 1 and counts[split] > 1:
            yield (
                f"all {counts[split]:,} {split} records have the same text; look at the examples, "
                "and at which file or column the texts come from"
            )
    if not any(split in counts for split in HELD_OUT):
        yield (
            "no record is held out, so nothing can be evaluated on this set; raise "
            "--validation_share"
        )
    if TRAIN not in counts:
        yield "no record is left to train on"
    for reason, count in meta["dropped"].items():
        if count > LARGE * items:
            advice = f": {ADVICE[reason]}" if reason in ADVICE else ""
            yield f"{count / items:.0%} of the items were dropped as {reason}{advice}"
    for reason, count in meta["left_out"].items():
        if count > LARGE * items:
            yield f"{count / items:.0%} of the items were left out as {reason}"
    if meta.get("duplicates", 0) > LARGE * items:
        yield (
            f"{meta['duplicates']:,} records are byte-equal copies of others; --deduplicate merges "
            "them"
        )
    for file, why in meta["bad_inputs"]:
        yield f"{file} was skipped: {why}"


def _spread(parts: Sequence[Part]) -> list[Part]:
    """Returns the first, the middle and the last part that has records."""
    filled = [part for part in parts if part.examples]
    places = {0, len(filled) // 2, len(filled) - 1} if filled else set()
    return [filled[place] for place in sorted(places)]
