"""A step's description, sealed: it lists every array with its digest, and has its own SHA-256."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from vlbeit_jax.errors import Diverged
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.digest import RUINED, tree_digests
from vlbeit_jax.training.param_names import leaf_name

ARRAYS, SEAL = "arrays", "sha256"  # Entries of a sealed description.
SHOWN = 3  # Arrays that a message names.


class Kept(NamedTuple):
    """What is known of a saved array before it is read.

    Attributes:
      dtype: name of its type.
      shape: its shape.
      digest: of its content; empty in steps of earlier versions.
    """

    dtype: str
    shape: tuple[int, ...]
    digest: str = ""

    def differs(self, other: "Kept") -> str:
        """Returns in what two arrays differ, as "a there, b here"; empty if in nothing."""
        if self.shape != other.shape:
            return f"{self.shape} there, {other.shape} here"
        return f"{self.dtype} there, {other.dtype} here" if self.dtype != other.dtype else ""


def array_facts(tree: Tree) -> dict[str, Kept]:
    """Returns type and shape of each leaf by name; the leaves may be arrays or stand for them."""
    return {
        leaf_name(path): Kept(str(leaf.dtype), tuple(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def sealed(description: Mapping[str, Any], trees: Mapping[str, Tree]) -> dict[str, Any]:
    """Returns a description with the facts of every array, and a seal over all of it.

    Every process must call it, because arrays may lie on the devices of several.

    Raises:
      Diverged: arrays hold numbers that are of no use. Every process raises it.
    """
    arrays: dict[str, dict[str, Kept]] = {}
    for name, tree in trees.items():
        digests, facts = tree_digests(tree), array_facts(tree)
        arrays[name] = {leaf: facts[leaf]._replace(digest=digests[leaf].text) for leaf in facts}
        if ruined := [leaf for leaf in facts if digests[leaf].ruined]:
            more = f" and {len(ruined) - SHOWN} more" if len(ruined) > SHOWN else ""
            raise Diverged(
                f"this step is not saved: {', '.join(f'{name}/{leaf}' for leaf in ruined[:SHOWN])}"
                f"{more} has numbers that are not finite, or not below {RUINED:.0e}; lower "
                "optimizer.peak_lr, and resume from the newest checkpoint"
            )
    return with_seal(json.loads(json.dumps({**description, ARRAYS: arrays})))


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns JSON values with their seal, in place of any other."""
    values = {name: value for name, value in content.items() if name != SEAL}
    return {**values, SEAL: _sha256(values)}


def is_sealed(description: Mapping[str, Any]) -> bool:
    """Whether a step has digests. A single flipped bit does not make a step one that has none."""
    return ARRAYS in description or SEAL in description


def broken_seal(description: Mapping[str, Any]) -> str:
    """Returns what is wrong with a description that should be sealed; empty if nothing is."""
    missing = [name for name in (ARRAYS, SEAL) if name not in description]
    if missing:
        return f"it has no entry {missing[0]!r}"
    if description[SEAL] == with_seal(description)[SEAL]:
        return ""
    return "it does not have its SHA-256"


def saved_arrays(description: Mapping[str, Any], name: str) -> dict[str, Kept]:
    """Returns the facts of the arrays of a tree of a sealed description; empty for no such tree."""
    saved = description[ARRAYS].get(name, {})
    return {
        leaf: Kept(dtype, tuple(shape), digest) for leaf, (dtype, shape, digest) in saved.items()
    }


def differences(saved: Mapping[str, Kept], needed: Mapping[str, Kept]) -> list[str]:
    """Returns a line for each array that differs in type or shape, or is missing on one side."""
    lines = []
    for name in sorted({*saved, *needed}):
        if name not in saved or name not in needed:
            there, here = (
                each[name].shape if name in each else "nothing" for each in (saved, needed)
            )
            lines.append(f"{name}: {there} there, {here} here")
        elif different := saved[name].differs(needed[name]):
            lines.append(f"{name}: {different}")
    return lines


def _sha256(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
