"""Our TPU kernels are found in a program by name, and their scheduled bundles become cycles."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tests import tiny
from tests.plan.test_plan import LIBTPU
from vlbeit_jax.plan.hlo import parse
from vlbeit_jax.plan.kernels import Kernel, cycles_in, kernels_of
from vlbeit_jax.plan.topology import ENVIRONMENT

LONG = Kernel("backward", "bf16", 8, 1601, 768, 12, ("valid", "mask", "bias"), True)
PROGRAM = """HloModule jit_step, is_scheduled=true

ENTRY %main (p: bf16[8,1601,2304]) -> bf16[8,1601,768] {
  %p = bf16[8,1601,2304]{2,1,0} parameter(0)
  %forward_kernel_12.1 = (bf16[8,197,768]{2,1,0}) custom-call(%p), custom_call_target="tpu"
  %jvp_forward_kernel_6_valid_.2 = bf16[8,197,384]{2,1,0} custom-call(%p, %p)
  %transpose_jvp_backward_long_kernel_12_valid_mask_bias__.3 = (bf16[8,1601,2304]{2,1,0}, \
f32[8,1,2304]{2,1,0}, f32[12,1601,1601]{2,1,0}) custom-call(%p, %p, %p, %p, %p)
  %other = bf16[8,197,384]{2,1,0} custom-call(%p), custom_call_target="forward_kernel_6"
  ROOT %r = bf16[8,1601,768]{2,1,0} slice(%p)
}
"""
SCHEDULE = """= control target key start
LB: loop body
   0x3   :  { %14 = vsyncpa [#allocation4 + $0x1], 0 }
   0x7 LB: > { %1 = sst [smem:[#allocation9_spill]] %s1 }
   0x8   : > { %2 = vsyncadd }
{loop}
 0x1112 PF: > { %3 = sbr.rel (!%p1) target = $region42 }
"""
LOOP = "  0x9 LB: >> { %4 = vadd.f32 %v1, %v2 }\n  0xa   : >> { %5 = vst [vmem:%s3] }"


def test_kernels_are_found_by_name_with_what_they_get():
    assert list(kernels_of(parse(PROGRAM)).values()) == [
        Kernel("forward", "bf16", 8, 197, 768, 12, (), False),
        Kernel("forward", "bf16", 8, 197, 384, 6, ("valid",), False),
        LONG,
    ]


def test_a_loop_counts_as_often_as_it_runs():
    assert cycles_in(SCHEDULE.replace("{loop}", LOOP), programs=6, looped=5) == 6 * (3 + 5 * 2)
    assert cycles_in(SCHEDULE.replace("{loop}", ""), programs=1, looped=0) == 3
    for text, looped in ((LOOP, 0), ("", 5)):
        with pytest.raises(AssertionError):
            cycles_in(SCHEDULE.replace("{loop}", text), programs=1, looped=looped)


@pytest.mark.slow
@pytest.mark.skipif(
    not LIBTPU.is_dir(), reason="libtpu is not beside the other peers; tests/run.sh puts it there"
)
def test_the_compiler_takes_the_long_kernel_with_all_that_it_may_get():
    """For 1,601 tokens; its memory on the chip is what the compiler may give it."""
    kinds = [dataclasses.replace(LONG, batch=2, part=part) for part in ("forward", "backward")]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{tiny.TOP}:{LIBTPU}"}
    done = subprocess.run(
        [sys.executable, "-m", "vlbeit_jax.plan.kernels", "v5e:1x1"],
        input=json.dumps([dataclasses.asdict(kind) for kind in kinds]),
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    forward, backward = json.loads(done.stdout.splitlines()[-1])
    # The matrix unit alone needs 32 cycles for 128 x 128 weights of a head: two products forward,
    # five backward.
    tiles = 12 * 13 * 12.5
    assert 32 * 2 * tiles < forward < 100 * 2 * tiles
    assert 32 * 5 * tiles < backward < 100 * 5 * tiles
