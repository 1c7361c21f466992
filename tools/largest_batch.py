"""Prints the largest batch size, a power of two, that fits into a device's memory by formula.

Usage: python -m tools.largest_batch CONFIG_FILE[:SIZE] GIBIBYTES

The last line is the batch size of every stream without remat. The lines before it say what else
would fit, and in how much memory.
"""

import jax

from tools.command import run
from tools.step_needs import load, needs_of
from vlbeit_jax.cost.peaks import GIB
from vlbeit_jax.errors import UsageError


def main(arguments: list[str]) -> None:
    """Prints what fits."""
    try:
        name, gibibytes = arguments[0], float(arguments[1])
    except (IndexError, ValueError) as error:
        raise UsageError(
            "give a configuration and a number of GiB, as in: python -m tools.largest_batch "
            "configs/pretrain_base.py:small 24"
        ) from error
    # It needs no device, and a GPU may be busy.
    jax.config.update("jax_platforms", "cpu")
    needs = needs_of(load(name), jax.devices()[:1])
    for remat in needs.activation_bytes:
        rows = needs.largest(gibibytes, remat)
        print(
            f"remat={remat}: {rows} of each stream, {needs.total(rows, remat=remat) / GIB:.1f} GiB"
        )
    print(max(needs.largest(gibibytes), 1))


if __name__ == "__main__":
    run(main, __doc__)
