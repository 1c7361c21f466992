"""What one layer of attention takes on the device that is here: a line of JSON per implementation.

    python -m tools.attention_times ROWS TOKENS [NAME...]

Times attention of 12 heads of 64, forward and backward, with padding, in bfloat16. NAME is one of
those of ``tools.attention_plan`` and cudnn; without any, einsum and the one that ``auto`` chooses
are timed. A line has the median milliseconds and their quartiles, the temporaries in the device's
memory, and the largest error of the result and the gradients. The error is the difference to
attention in float32, relative to the largest entry of each array.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tools import command
from tools.attention_plan import HEADS, WIDTH, implementations, with_gradients
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.attention import choose_implementation

WARMUP, TIMED = 3, 20  # Calls.


def inputs(rows: int, tokens: int) -> tuple[Any, ...]:
    """Returns random queries, keys and values, biases, valid keys, and the result's change."""
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    lengths = rng.integers(tokens // 2, tokens + 1, rows)
    lengths[0] = tokens
    return (
        jnp.asarray(rng.normal(size=(rows, tokens, 3 * WIDTH)), jnp.bfloat16),
        jnp.asarray(rng.normal(size=3 * WIDTH), jnp.float32),
        jnp.arange(tokens) < lengths[:, None],
        jnp.asarray(rng.normal(size=(rows, tokens, WIDTH)), jnp.bfloat16),
    )


def in_float32(given: tuple[Any, ...]) -> list[Any]:
    """Returns the result and the gradients in float32, as ``with_gradients`` does."""
    import jax
    import jax.numpy as jnp

    projected, shift, valid, change = given
    exact = (projected.astype(jnp.float32), shift, valid, change.astype(jnp.float32))
    with jax.default_matmul_precision("highest"):
        return jax.tree.leaves(jax.jit(with_gradients(implementations(0)["einsum"]))(*exact))


def measured(attend: Callable[..., Any], given: tuple[Any, ...], exact: list[Any]) -> dict:
    """Returns the times, memory and error of an implementation."""
    import jax

    call = jax.jit(with_gradients(attend)).lower(*given).compile()
    found = jax.tree.leaves(call(*given))
    seconds = []
    for _ in range(WARMUP + TIMED):
        began = time.perf_counter()
        jax.block_until_ready(call(*given))
        seconds.append(time.perf_counter() - began)
    low, middle, high = np.percentile(seconds[WARMUP:], (25, 50, 75)) * 1e3
    analysis = call.memory_analysis()
    assert analysis is not None
    return {
        "milliseconds": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "temporaries_mib": round(analysis.temp_size_in_bytes / 2**20, 1),
        "largest_error": max(_error(a, b) for a, b in zip(found, exact, strict=True)),
    }


def _error(found: Any, exact: Any) -> float:
    exact = np.asarray(exact, np.float64)
    return float(np.abs(np.asarray(found, np.float64) - exact).max() / np.abs(exact).max())


def main(arguments: list[str]) -> None:
    """Prints a line for each implementation, as it is measured."""
    import jax
    import jax.numpy as jnp

    sizes, names = arguments[:2], arguments[2:]
    known = list(implementations(0))
    if len(sizes) < 2 or not all(each.isdigit() for each in sizes) or {*names} - {*known}:
        raise UsageError(
            f"usage: python -m tools.attention_times ROWS TOKENS [NAME...], a NAME being one of "
            f"{', '.join(known)}"
        )
    rows, tokens = (int(each) for each in sizes)
    chosen = choose_implementation("auto", tokens, WIDTH, HEADS, jnp.dtype(jnp.bfloat16))
    given = inputs(rows, tokens)
    exact = in_float32(given)
    for name in names or dict.fromkeys(("einsum", chosen)):
        line = {
            "attention": name,
            "rows": rows,
            "tokens": tokens,
            "device": jax.devices()[0].device_kind,
            "auto": name == chosen,
        }
        found = measured(implementations(tokens)[name], given, exact)
        print(json.dumps(line | found), flush=True)


if __name__ == "__main__":
    command.run(main, __doc__)
