"""What one layer of attention needs on a TPU chip, by the compiler: a table of implementations.

    python -m tools.attention_plan ROWS TOKENS [NAME...]

Compiles attention of 12 heads of 64, forward and backward, with padding, in bfloat16, for one v5e
chip. NAME is one of einsum, remat, dot_product, splash and fused; without any, all are compiled.
The table has the temporaries in the chip's memory, and both estimates of the time (docs/scale.md,
"How step times are estimated"). A block of Splash has 512 queries and keys, or SPLASH_BLOCK of the
environment.

It needs libtpu, but no TPU.
"""

import collections
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

from tools import command
from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan.topology import ENVIRONMENT, parse_topology

HEADS, WIDTH, CHIP = 12, 768, "v5e:1x1"
BLOCK = int(os.environ.get("SPLASH_BLOCK", "512"))


def implementations(tokens: int) -> dict[str, Callable[..., Any]]:
    """Returns attention from ``projected``, its biases and the valid keys, by name."""
    import jax
    import jax.numpy as jnp

    from vlbeit_jax.ops.attention import attention, ungroup

    def ours(name: str) -> Callable[..., Any]:
        return lambda x, shift, valid: attention(x, shift, HEADS, valid, implementation=name)

    def remat(x: Any, shift: Any, valid: Any) -> Any:
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(lambda *given: ours("einsum")(*given, valid), policy=keep)(x, shift)

    def split(x: Any, shift: Any) -> list[Any]:
        parts = ungroup(x + shift.astype(x.dtype), HEADS)
        return [each.reshape(*each.shape[:2], HEADS, -1) for each in parts]

    def dot_product(x: Any, shift: Any, valid: Any) -> Any:
        mask = valid[:, None, None, :]
        out = jax.nn.dot_product_attention(*split(x, shift), mask=mask)
        return out.reshape(*x.shape[:2], WIDTH)

    def splash(x: Any, shift: Any, valid: Any) -> Any:
        from jax.experimental.pallas.ops.tpu.splash_attention import (
            splash_attention_kernel as kernels,
        )
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        # It takes whole blocks, and heads before tokens.
        length = -(-tokens // BLOCK) * BLOCK
        pad = [(0, 0), (0, 0), (0, length - tokens), (0, 0)]
        query, key, value = (jnp.pad(each.swapaxes(1, 2), pad) for each in split(x, shift))
        names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
        blocks: dict[str, Any] = {f"block_{name}": BLOCK for name in names}
        sizes = kernels.BlockSizes(**blocks, use_fused_bwd_kernel=True)
        mask = masks.MultiHeadMask([masks.FullMask((length, length))] * HEADS)
        call = kernels.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)
        shown = jnp.pad(valid, ((0, 0), (0, length - tokens))).astype(jnp.int32)

        def of_row(query: Any, key: Any, value: Any, shown: Any) -> Any:
            segments = kernels.SegmentIds(jnp.ones_like(shown), shown)
            return call(query, key, value, segment_ids=segments)

        out = jax.vmap(of_row)(query * (WIDTH // HEADS) ** -0.5, key, value, shown)
        return out[:, :, :tokens].swapaxes(1, 2).reshape(*x.shape[:2], WIDTH)

    return {
        "einsum": ours("einsum"),
        "remat": remat,
        "dot_product": dot_product,
        "splash": splash,
        "fused": ours("fused"),
        "cudnn": ours("cudnn"),
    }


def with_gradients(attend: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of ``attend``'s arguments and the result's change: result, gradients."""
    import jax

    def whole(x: Any, shift: Any, valid: Any, change: Any) -> Any:
        out, back = jax.vjp(lambda *given: attend(*given, valid), x, shift)
        return out, back(change)

    return whole


def compiled(attend: Callable[..., Any], rows: int, tokens: int, device: Any) -> Any:
    """Returns the compiled program of the result and its gradients."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh([device], ("chip",))
    here = NamedSharding(mesh, PartitionSpec())

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=here)

    with jax.set_mesh(mesh):
        lowered = jax.jit(with_gradients(attend)).lower(
            array(jnp.bfloat16, rows, tokens, 3 * WIDTH),
            array(jnp.float32, 3 * WIDTH),
            array(jnp.bool_, rows, tokens),
            array(jnp.bfloat16, rows, tokens, WIDTH),
        )
        return lowered.compile()


def splash_seconds(program: Any, rows: int, tokens: int, folder: pathlib.Path) -> dict[str, float]:
    """Returns the seconds of Splash's kernels: bundles of a pair of blocks, for each pair."""
    from vlbeit_jax.plan.kernels import bundles_by_depth

    chip = parse_topology(CHIP).chip
    assert chip is not None
    pairs, found = rows * HEADS * (-(-tokens // BLOCK)) ** 2, collections.defaultdict(float)
    for each, _ in program.executed():
        if each.opcode == "custom-call" and "splash" in each.name:
            name = re.sub(r"\.\d+$", "", each.name)
            (written,) = (
                path
                for path in folder.glob(f"*{name}*-final_bundles.txt")
                if "schedule" not in path.name
            )
            found[each.name] = pairs * bundles_by_depth(written.read_text())[1] / chip.clock
    return dict(found)


def row_of(name: str, rows: int, tokens: int, folder: pathlib.Path) -> str:
    """Returns a row of the table."""
    from vlbeit_jax.plan import hlo
    from vlbeit_jax.plan.devices import devices_of
    from vlbeit_jax.plan.kernels import kernel_seconds
    from vlbeit_jax.plan.step_time import step_time

    topology = parse_topology(CHIP)
    device = devices_of(topology)[0]
    found = compiled(implementations(tokens)[name], rows, tokens, device)
    program = hlo.parse(found.as_text())
    seconds = kernel_seconds(program, topology) | splash_seconds(program, rows, tokens, folder)
    time = step_time(program, topology, [device.coords], seconds)
    memory = found.memory_analysis().temp_size_in_bytes / 2**20
    return (
        f"| {name} | {memory:,.0f} MiB | {1e3 * time.bounded:.2f} ms | {1e3 * time.plain:.2f} ms |"
    )


def main(arguments: list[str]) -> None:
    """Compiles and prints the table, a row at a time."""
    from vlbeit_jax.plan.kernels import DUMP

    known = [name for name in implementations(0) if name != "cudnn"]  # For NVIDIA's GPUs only.
    sizes, names = arguments[:2], arguments[2:] or known
    if len(sizes) < 2 or not all(each.isdigit() for each in sizes) or {*names} - {*known}:
        raise UsageError(
            f"usage: python -m tools.attention_plan ROWS TOKENS [NAME...], a NAME being one of "
            f"{', '.join(known)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= ENVIRONMENT | {
            "LIBTPU_INIT_ARGS": DUMP.format(folder),  # Splash's schedule.
            "JAX_PLATFORMS": "cpu",
        }
        print("| attention | temporaries | bounded | plain |\n|---|---|---|---|")
        for name in names:
            print(row_of(name, int(sizes[0]), int(sizes[1]), pathlib.Path(folder)), flush=True)
            for old in pathlib.Path(folder).iterdir():
                old.unlink()


if __name__ == "__main__":
    command.run(main, __doc__)
