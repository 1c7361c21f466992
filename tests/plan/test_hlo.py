"""XLA's programs are parsed (loops, fusions, memory spaces, groups) and timed.

Times are added up as docs/scale.md says.
"""

import itertools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import tiny
from vlbeit_jax.plan.hlo import MATMULS, parse, sizes
from vlbeit_jax.plan.links import _groups, collectives
from vlbeit_jax.plan.step_time import step_time
from vlbeit_jax.plan.topology import parse_topology

CYCLES = 'backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'
BESIDE = (
    "output_to_operand_aliasing={{1}: (1, {}), {2}: (2, {})}, calls=%async_collective_fusion.1, "
    + CYCLES.format(7515)
)
GATHER = "channel_id=1, replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}"
SHAPES = "(f32[1024,1024], bf16[64,1024], bf16[1024,1024])"
SCATTER = "channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%negate"
PARTS = "(f32[1024,1024]{1,0}, bf16[64,1024]{1,0}, bf16[1024,1024]{1,0})"
REDUCE = "channel_id=9, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%negate"
START = 'custom_call_target="AsyncCollectiveStart"'
CUSTOM = "kind=kCustom, calls="
MATMUL = "kind=kOutput, calls=%matmul, " + CYCLES.format(15030)
SLOW = "kind=kLoop, calls=%negate, " + CYCLES.format(150300)
QUICK = "kind=kLoop, calls=%negate, " + CYCLES.format(1503)
# A program as the TPU compiler writes it, without the attributes that do not matter here. 1503
# cycles of a v5e are a microsecond.
PROGRAM = f"""HloModule jit_step, is_scheduled=true

%matmul (a: bf16[1024,1024], b: bf16[1024,1024]) -> bf16[1024,1024] {{
  %a = bf16[1024,1024]{{1,0}} parameter(0)
  %b = bf16[1024,1024]{{1,0}} parameter(1)
  ROOT %c = bf16[1024,1024]{{1,0}} convolution(%a, %b), dim_labels=bf_io->bf
}}

%negate (x: f32[1024,1024]) -> f32[1024,1024] {{
  %x = f32[1024,1024]{{1,0}} parameter(0)
  ROOT %n = f32[1024,1024]{{1,0}} negate(%x)
}}

%all-reduce-scatter.1 (input: bf16[1024,1024]) -> bf16[64,1024] {{
  %input = bf16[1024,1024]{{1,0}} parameter(0)
  %all-reduce.1 = bf16[1024,1024]{{1,0}} all-reduce(%input), {SCATTER}
  ROOT %s = bf16[64,1024]{{1,0}} dynamic-slice(%all-reduce.1)
}}

%begin (p: bf16[64,1024]) -> (bf16[64,1024], bf16[1024,1024], u32[]) {{
  %p = bf16[64,1024]{{1,0}} parameter(0)
  %g = bf16[1024,1024]{{1,0}} all-gather(%p), {GATHER}
  ROOT %s.1 = (bf16[64,1024]{{1,0}}, bf16[1024,1024]{{1,0}}, u32[]) custom-call(%g), {START}
}}

%async_collective_fusion.1 (q: f32[1024,1024], p: bf16[64,1024], g: bf16[1024,1024]) -> {SHAPES} {{
  %q = f32[1024,1024]{{1,0}} parameter(0)
  %p.1 = bf16[64,1024]{{1,0}} parameter(1)
  %g.1 = bf16[1024,1024]{{1,0}} all-gather(%p.1), {GATHER}
  %n.1 = f32[1024,1024]{{1,0}} negate(%q)
  ROOT %t.2 = {PARTS} tuple(%n.1, %p.1, %g.1)
}}

%end (p: bf16[64,1024], g: bf16[1024,1024]) -> bf16[1024,1024] {{
  %p.2 = bf16[64,1024]{{1,0}} parameter(0)
  %g.2 = bf16[1024,1024]{{1,0}} all-gather(%p.2), {GATHER}
  ROOT %d = bf16[1024,1024]{{1,0}} custom-call(%p.2, %g.2), custom_call_target="AsyncCollectiveDone"
}}

%body (t: (s32[], f32[1024,1024])) -> (s32[], f32[1024,1024]) {{
  %t = (s32[], f32[1024,1024]{{1,0}}) parameter(0)
  %e = f32[1024,1024]{{1,0}} get-tuple-element(%t), index=1
  %step = f32[1024,1024]{{1,0}} fusion(%e), kind=kLoop, calls=%negate, {CYCLES.format(1503)}
  ROOT %u = (s32[], f32[1024,1024]{{1,0}}) tuple(%step)
}}

%condition (t: (s32[], f32[1024,1024])) -> pred[] {{
  %t.1 = (s32[], f32[1024,1024]{{1,0}}) parameter(0)
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%t.1, %limit), direction=LT
}}

ENTRY %main (x: bf16[1024,1024], y: f32[1024,1024]) -> f32[1024,1024] {{
  %x.1 = bf16[1024,1024]{{1,0:T(8,128)(2,1)}} parameter(0)
  %y = f32[1024,1024]{{1,0:T(8,128)}} parameter(1)
  %product = bf16[1024,1024]{{1,0:T(8,128)(2,1)S(1)}} fusion(%x.1, %x.1), {MATMUL}
  %slow = f32[1024,1024]{{1,0:T(8,128)}} fusion(%y), {SLOW}
  %quick = f32[1024,1024]{{1,0:T(8,128)}} fusion(%y), {QUICK}
  %scatter = bf16[64,1024]{{1,0:T(8,128)(2,1)}} fusion(%product), {CUSTOM}%all-reduce-scatter.1
  %gather.1 = (bf16[64,1024]{{1,0}}, bf16[1024,1024]{{1,0}}, u32[]) fusion(%scatter), {CUSTOM}%begin
  %part.1 = bf16[64,1024]{{1,0}} get-tuple-element(%gather.1), index=0
  %part.2 = bf16[1024,1024]{{1,0}} get-tuple-element(%gather.1), index=1
  %beside = {PARTS} fusion(%quick, %part.1, %part.2), {BESIDE}
  %part.3 = bf16[64,1024]{{1,0}} get-tuple-element(%beside), index=1
  %part.4 = bf16[1024,1024]{{1,0}} get-tuple-element(%beside), index=2
  %gathered = bf16[1024,1024]{{1,0}} fusion(%part.3, %part.4), {CUSTOM}%end
  %sum = f32[256]{{0}} all-reduce(%quick), {REDUCE}
  ROOT %loop = (s32[], f32[1024,1024]{{1,0}}) while(%slow), condition=%condition, body=%body
}}
"""
MEGABYTE = 2**20


def test_shapes_have_elements_bytes_and_a_place():
    assert sizes("f32[2,3]{1,0:T(8,128)}") == (6, 24, 24)
    assert sizes("bf16[128]{0:T(128)S(1)}") == (128, 256, 0)
    assert sizes("(f32[], /*index=1*/pred[7]{0}, s8[4]{0:S(6)})") == (12, 15, 11)


def test_a_program_is_its_instructions_loops_and_fusions():
    program = parse(PROGRAM)
    run = {each.name: times for each, times in program.executed()}
    assert run["step"] == 5 and run["product"] == 1 and "c" not in run and "n" not in run
    named = program.operands("main")
    assert named["product"].cycles == 15030 and program.contains(named["product"], MATMULS)
    assert not program.contains(named["slow"], MATMULS) and named["product"].hbm_bytes == 0


def test_times_are_added_as_documented():
    """Microseconds by hand: the matmul takes 10 in both totals.

    The pass over 8 MB of memory takes 100 by cycles and 12.05 at 85% of 819 GB/s.
    """
    topology = parse_topology("v5e:2x4")
    places = list(itertools.product(range(2), range(4)))
    found = step_time(parse(PROGRAM), topology, places)
    memory = 8 * MEGABYTE / (0.85 * 819e9)
    # 35 microseconds, of which 5 overlap with a fusion that passes the gather's arrays on.
    gather = 2 * MEGABYTE * 3 / 4 / 45e9
    blocking = found.blocking
    assert found.waiting == pytest.approx(gather - 5e-6)
    assert found.plain - blocking == pytest.approx((10 + 100 + 1 + 5 * 1) * 1e-6 + gather)
    assert found.bounded - blocking == pytest.approx(10e-6 + memory + 6e-6 + gather)
    assert found.matmul == pytest.approx(10e-6)


def test_collectives_have_kind_group_bytes_and_time():
    """Eight chips as 2 x 4: a group of four lies on one axis.

    The axis has no wrap-around, so neighbours share one link of 45 GB/s.
    """
    topology = parse_topology("v5e:2x4")
    found = {
        each.kind: each
        for each in collectives(
            parse(PROGRAM), topology, list(itertools.product(range(2), range(4)))
        )
    }
    assert found.keys() == {"reduce-scatter", "all-gather", "all-reduce"}
    scatter, gather, reduce = found["reduce-scatter"], found["all-gather"], found["all-reduce"]
    assert (scatter.group, scatter.axes, scatter.blocking, scatter.count, scatter.bytes) == (
        4,
        1,
        True,
        1,
        2 * MEGABYTE,
    )
    assert scatter.seconds == pytest.approx(2 * MEGABYTE * 3 / 4 / 45e9)
    assert (gather.blocking, gather.count, gather.bytes) == (
        False,
        1,
        2 * MEGABYTE,
    )  # Start, what goes on meanwhile, and end are one.
    assert (reduce.group, reduce.axes, reduce.bytes) == (4, 2, 1024)  # 0, 2, 4, 6: both axes.
    assert reduce.seconds == pytest.approx(2 * 1024 * 3 / 4 / 90e9)


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ("{{0,1},{2,3}}", [0, 1]),
        ("[2,4]<=[8]", [0, 1, 2, 3]),
        ("[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("mesh['a'=2,'b'=4] {'b'}", [0, 1, 2, 3]),
        ("mesh['a'=2,'b'=4] {'a'}", [0, 4]),
        ("mesh['a'=2,'b'=4] {'a','b'}", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("mesh['a'=8] {'a':(2)4}", [0, 1, 2, 3]),
        ("mesh['a'=8] {'a':(1)2}", [0, 4]),
        ("mesh['a'=8] {'a':(2)2}", [0, 2]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_groups_are_read_in_every_notation(written, first):
    groups = _groups(f"%x = f32[8] all-reduce(%y), replica_groups={written}, to_apply=%add", 8)
    assert groups[0] == first and sorted(sum(groups, [])) == list(range(len(groups) * len(first)))


def test_xlas_own_program_on_simulated_devices_is_read():
    mesh = tiny.mesh_of(data=4, fsdp=2)
    place = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=place)
    w = jax.ShapeDtypeStruct((32, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    text = jax.jit(jax.grad(lambda w, x: (x @ w).sum())).lower(w, x).compile().as_text()
    (found,) = collectives(parse(text), parse_topology("cpu:8"), [(device,) for device in range(8)])
    assert (found.kind, found.group, found.blocking) == ("all-reduce", 8, True) and found.bytes in (
        32 * 4,
        32 * 8 * 4,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v7:2x2", "no such chip"),
        ("v5e", "2 size"),
        ("v5e:4x4x4", "2 size"),
        ("v5p:4x4", "3 size"),
        ("v5e:0x4", "above 0"),
        ("cpu:x", "cpu:8"),
    ],
)
def test_a_wrong_topology_is_answered_with_a_right_one(text, said):
    from vlbeit_jax.errors import UsageError

    with pytest.raises(UsageError, match=said):
        parse_topology(text)
