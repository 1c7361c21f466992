"""docs/hardware.md: its tables are what the commands make, and these follow from their sources."""

import dataclasses
import re

import jax
import pytest

from tests import tiny
from tools import hardware_tables, hardware_times, largest_batch, step_needs, trace_needs
from tools.benchmark_entries import read_all
from vlbeit_jax.cost.peaks import GIB, GPUS, device_peak
from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan import memory
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.state import declarations

BASE_ENTRY = "h200-base-1024.json"


@pytest.fixture(scope="module")
def needs():
    return trace_needs.read()


@pytest.fixture(scope="module")
def entries():
    return read_all()


def test_the_committed_page_is_what_the_command_makes():
    text = hardware_tables.PAGE.read_text()
    assert text == hardware_tables.page(text)
    changed = text.replace("| small |", "| small | ?", 1)
    assert changed != text == hardware_tables.page(changed)


def shallow(fsdp=1, matmul="bfloat16"):
    config = step_needs.load("configs/pretrain_base.py:tiny", fsdp, matmul)
    small = {"depth": 2, "fused_layers": 1, "vocabulary": 1000}
    return tiny.changed(config, task={"model": small, "tokenizer_model": {"encoder_depth": 1}})


def estimate(config, devices, accumulate):
    """The formula, asked for one batch size."""
    mesh = make_mesh(config.mesh, devices)
    _, _, state, frozen, batches = abstract_step(config, mesh)
    objectives = {name: each.objective for name, each in config.task.streams().items()}
    info = declarations(config.task.init).info
    on_tpu = config.task.model.matmul == "bfloat16"
    return memory.estimate(
        objectives, state, info, frozen, batches, accumulate, len(devices), 1, on_tpu
    ).total


@pytest.mark.parametrize(
    ("devices", "matmul"),
    [
        (4, "bfloat16"),
        *(pytest.param(1, matmul, marks=pytest.mark.slow) for matmul in ("bfloat16", "float32")),
    ],
)
def test_one_trace_gives_what_the_formula_says_for_any_batch(devices, matmul):
    config, chosen = shallow(devices, matmul), jax.devices()[:devices]
    found = step_needs.needs_of(config, chosen)
    for rows, accumulate, remat in ((1, 1, "none"), (24, 4, "full"), (32, 1, "dots")):
        asked = tiny.changed(
            step_needs.with_rows(config, rows * devices), task={"model": {"remat": remat}}
        )
        asked = dataclasses.replace(
            asked, run=dataclasses.replace(asked.run, accumulate=accumulate)
        )
        assert found.total(rows, accumulate, remat) == estimate(asked, chosen, accumulate)


NEEDS = step_needs.Needs(10, 2 * GIB, GIB, 0, {"none": GIB, "full": GIB // 4}, 3e9, 1e9)


def test_the_largest_batch_is_the_largest_power_of_two_in_85_percent():
    # 85% of 8 GiB are 6.8: 2 and 4 of 1 GiB each, not 8; and 16 of a quarter each, not 32.
    assert NEEDS.largest(8) == 4 and NEEDS.largest(8, "full") == 16
    assert NEEDS.largest(2) == 0 and NEEDS.largest(1e9) == step_needs.LARGEST
    assert NEEDS.total(16, accumulate=8) == 5 * GIB and NEEDS.total(1) == 3 * GIB


def test_flags_take_the_fewest_microbatches_and_remat_only_where_it_helps():
    few = dataclasses.replace(NEEDS, fixed_bytes=0, sum_bytes=0)
    assert hardware_tables.flags(few, 400) == "accumulate=1"
    assert hardware_tables.flags(few, 80) == "accumulate=4"
    # At 4 GiB three rows would fit at once without remat.
    assert hardware_tables.flags(few, 4) == "accumulate=32, remat=full"
    assert hardware_tables.flags(NEEDS, 1) == "does not fit"


def test_an_h200_takes_the_time_that_it_was_measured_to_take(needs, entries):
    entry = entries[BASE_ENTRY]
    h200, base = hardware_times.H200, needs["base"][trace_needs.ONE]
    low, high = hardware_times.seconds_of_row(base, False, h200, entry)
    assert low == pytest.approx(3 / entry["samples_per_second"], rel=1e-3)
    assert high == pytest.approx(low)
    # Cached tokens were measured too, and follow from the operations alone.
    read, _ = hardware_times.seconds_of_row(base, True, h200, entry)
    measured = entries["h200-base-1024-cached.json"]["samples_per_second"]
    assert read == pytest.approx(3 / measured, rel=0.01)
    half = dataclasses.replace(h200, peak=h200.peak / 2, memory_rate=h200.memory_rate / 4)
    slower = hardware_times.seconds_of_row(base, False, half, entry)
    share = hardware_times.PRODUCTS / hardware_times.ALL
    assert slower == pytest.approx((2 * low, low * (2 * share + 4 * (1 - share))))


def test_the_profile_is_that_of_the_page_about_the_gpu():
    """The right column is of the step as it is now."""
    page = (tiny.TOP / "docs" / "gpu.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| [\d.]+ \| ([\d.]+) \|$", page, re.MULTILINE))
    products = float(rows["matrix products"]) + float(rows["attention (cuDNN)"])
    assert hardware_times.PRODUCTS == pytest.approx(products)
    assert hardware_times.ALL == float(rows["sum"])


def test_every_card_is_known_by_the_name_that_jax_gives_it():
    assert all(device_peak(gpu.name) == gpu.peak for gpu in GPUS)
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)


def test_a_time_says_whether_it_is_measured_and_whether_the_step_fits(needs, entries):
    lines = hardware_times.gpu_lines(needs, entries, rows=1_000_000)
    rows = {line.split(",")[0].strip("| "): line for line in lines}
    # 3 million samples at 2,785 a second are 17.95 minutes.
    assert "| 18 min, measured rate |" in rows["H200"] and rows["H200"].count("measured") == 2
    assert rows["GeForce RTX 3070"].endswith("| does not fit |")
    assert not any("measured" in line for name, line in rows.items() if name != "H200")


def test_durations_have_two_digits_and_one_unit():
    assert hardware_times.duration(90) == "1.5 min" and hardware_times.duration(15) == "15 s"
    assert hardware_times.spread(3600, 7200) == "1.0 to 2.0 h"
    assert hardware_times.spread(7190, 7200) == "2.0 h"
    assert hardware_times.spread(2 * 86400, 12 * 86400) == "2.0 to 12 days"


def test_operations_are_those_of_the_plans(needs):
    """The plans counted them when they were compiled."""
    for model, plan in (("base", "base-v5e-16x16"), ("large", "large-v5e-16x16")):
        compiled = hardware_times.read_plan(hardware_times.PLANS / f"{plan}.json")
        one = needs[model][trace_needs.ONE]
        rows = compiled["samples"] / 3
        assert one.model_flops * rows == pytest.approx(compiled["model_flops"], rel=1e-9)
        assert one.frozen_flops * rows == pytest.approx(compiled["frozen_flops"], rel=1e-9)


def test_the_formula_is_within_a_fifth_of_the_plans_and_the_largest_batches(needs, entries):
    lines = hardware_tables.accuracy_lines(needs, entries)[2:]
    errors = [float(line.split("|")[4].strip(" %")) for line in lines]
    assert len(errors) >= 6
    large = [error for error, line in zip(errors, lines, strict=True) if ", 64 of each" not in line]
    assert len(large) == len(errors) - 1 and all(abs(error) <= 20 for error in large), lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "variant"),
    [
        *((model, trace_needs.ONE) for model in trace_needs.CONFIGS),
        ("base", trace_needs.EIGHT),
        ("base", trace_needs.EXACT),
    ],
)
def test_the_committed_needs_are_those_of_the_configurations(model, variant, needs):
    assert trace_needs.trace(model, variant) == needs[model][variant]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("configs/none.py", "configs/none.py: there is no such configuration file"),
        ("configs", "configs: there is no such"),
        ("configs/pretrain_base.py:huge", "It has tiny, small, base, large"),
    ],
)
def test_a_configuration_that_is_not_there_is_a_usage_error(name, said):
    with pytest.raises(UsageError, match=said):
        step_needs.load(name)


@pytest.mark.parametrize("arguments", [[], ["configs/pretrain_base.py"], ["a.py", "much"]])
def test_the_largest_batch_of_nothing_is_a_usage_error(arguments):
    with pytest.raises(UsageError, match="give a configuration and a number of GiB"):
        largest_batch.main(arguments)
