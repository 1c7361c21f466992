"""Takes off the prefixes that wrappers of a model put before the names of its tensors."""

from collections.abc import Iterable, Sequence

from vlbeit_jax.errors import UsageError

# No format here has a name of its own that begins so.
COMMON = (
    "module.",  # DistributedDataParallel and DeepSpeed.
    "model.",  # Lightning modules, which mostly keep the network as ``self.model``.
    "_orig_mod.",  # torch.compile.
)
COMPILED = "._orig_mod."  # A part of the network that was compiled on its own, as in blocks.0.


def short_names(
    names: Iterable[str], own: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns each name by its short form, and one sentence per prefix that was taken off.

    A prefix is taken off every name that has it, in any order and as often as it is there.

    Args:
      names: of a file's tensors.
      own: prefixes of one format, besides the common ones.

    Raises:
      UsageError: two names have the same short form, so the file holds two networks.
    """
    prefixes = (*COMMON, *own)
    names, short, changed = list(names), {}, {}
    for name in names:
        rest = name
        while prefix := next((each for each in prefixes if rest.startswith(each)), None):
            rest = rest.removeprefix(prefix)
            changed.setdefault(prefix, set()).add(name)
        if COMPILED in rest:
            rest = rest.replace(COMPILED, ".")
            changed.setdefault(COMPILED, set()).add(name)
        if rest in short:
            raise UsageError(
                f"the file holds both {short[rest]} and {name}, which are the same tensor of two "
                "networks. Save the tensors of one of them in a file of its own"
            )
        short[rest] = name
    notes = [
        f"the prefix {prefix} was taken off {len(those)} of {len(names)} names"
        for prefix, those in changed.items()
        if prefix != COMPILED
    ]
    if COMPILED in changed:
        those = len(changed[COMPILED])
        notes.append(f"the part {COMPILED} was taken out of {those} of {len(names)} names")
    return short, tuple(notes)
