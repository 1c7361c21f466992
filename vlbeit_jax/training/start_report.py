"""What became of each parameter in a warm start: for ``start.json`` and for the log."""

from collections.abc import Iterable, Sequence
from typing import Any

from vlbeit_jax.training.warm_start import Assignment, Origin, label_of


def listed(plan: Sequence[Assignment], source: Iterable[str]) -> dict[str, Any]:
    """Returns where every parameter comes from, ready for JSON: ``start.json`` of a run.

    Args:
      plan: of ``plan_warm_start``.
      source: names of the parameters in the start.
    """
    used = {each.taken for each in plan if each.origin is not Origin.FRESH}
    copies = {each.name: each.original for each in plan if each.origin is Origin.COPIED}
    return {
        "same": [each.name for each in plan if each.origin is Origin.SAME],
        "adapted": {
            each.name: {
                "from": list(each.source or ()),
                "to": list(each.shape),
                "by": label_of(each.adapter),
            }
            for each in plan
            if each.adapter
        },
        **({"copied": copies} if copies else {}),
        "fresh": [each.name for each in plan if each.origin is Origin.FRESH],
        "dropped": sorted(set(source) - used),
    }


def describe(plan: Sequence[Assignment], source: Iterable[str]) -> str:
    """Returns how many parameters are the same, and which ones are not.

    Args:
      plan: of ``plan_warm_start``.
      source: names of the parameters in the start.
    """
    names: dict[str, list[str]] = {str(origin): [] for origin in Origin}
    for each in plan:
        how = f" {each.source} -> {each.shape} by {label_of(each.adapter)}" if each.adapter else ""
        how += f" from {each.original}" if each.original else ""
        names[each.origin].append(each.name + how)
    used = {each.taken for each in plan if each.origin is not Origin.FRESH}
    names["dropped"] = sorted(set(source) - used)
    if not names[Origin.COPIED]:
        del names[Origin.COPIED]
    lines = [", ".join(f"{len(of_kind)} {kind}" for kind, of_kind in names.items())]
    del names[Origin.SAME]
    lines += [f"{kind}: {', '.join(of_kind)}" for kind, of_kind in names.items() if of_kind]
    return "\n  ".join(lines)
