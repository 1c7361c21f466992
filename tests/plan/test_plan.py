"""Plans: memory by formula against compilers, errors that name the remedy, the TPU command."""

import dataclasses
import json
import os
import pathlib
import sys

import pytest

from tests import processes, tiny
from vlbeit_jax.config.common import MeshConfig, RunConfig
from vlbeit_jax.config.networks import SIZES
from vlbeit_jax.cost.peaks import device_peak
from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan.plan import make_plan
from vlbeit_jax.plan.topology import parse_topology
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain

LIBTPU = pathlib.Path(sys.prefix) / "peers" / "libtpu"
STREAMS = ("image", "text", "pair")
SMALL = [
    "--config=configs/pretrain_base.py:tiny",
    "--config.task.model.depth=1",
    "--config.task.model.fused_layers=1",
    "--config.task.model.vocabulary=1000",
    "--config.task.tokenizer_model.encoder_depth=1",
    "--config.task.schedule=pair",
    *(f"--config.task.{stream}.batch_size=8" for stream in STREAMS),
]


def config_with(batch, model=SIZES["base"], schedule="image+text+pair", **changed):
    streams = {name: {"batch_size": batch} for name in STREAMS}
    task = Pretrain(schedule=schedule)
    task = tiny.changed(task, model=dict(model), tokenizer_model={"encoder_depth": 1}, **streams)
    return Config(task=task, **changed)


def command(*arguments, path=""):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    if path:
        environment["PYTHONPATH"] = str(path)
    return processes.command("vlbeit_jax.compile", *arguments, environment=environment, timeout=600)


@pytest.mark.slow
def test_a_plan_on_simulated_devices_counts_what_lies_there():
    plan = make_plan(
        config_with(8, mesh=MeshConfig(fsdp=4), model=SIZES["tiny"] | {"depth": 1}),
        parse_topology("cpu:8"),
        True,
    )
    assert plan.memory.optimizer == pytest.approx(2 * plan.memory.parameters, rel=1e-3)
    whole = make_plan(
        config_with(8, model=SIZES["tiny"] | {"depth": 1}),
        parse_topology("cpu:8"),
        False,
    )
    assert (
        plan.memory.parameters < 0.3 * whole.memory.parameters
        and plan.memory.frozen == whole.memory.frozen
    )
    assert {each.kind for each in plan.collectives} >= {"all-reduce"} and plan.times is None
    assert "step_seconds" not in plan.as_json() and plan.as_json()["hbm"]["limit"] is None


def test_keeping_less_needs_less_memory():
    """By formula: XLA's CPU backend keeps what it should recompute.

    Only a TPU's compiler shows the difference (docs/scale.md).
    """
    shallow = SIZES["base"] | {"depth": 3, "fused_layers": 1}

    def temporaries(remat):
        config = config_with(256, model=shallow | {"remat": remat}, schedule="pair")
        return make_plan(config, parse_topology("cpu:8"), False).memory.temporaries

    assert temporaries("full") < temporaries("dots") < temporaries("none")


ON_EIGHT = ["v5e:2x4", "--config.mesh.fsdp=8"]
PLANS = {
    "base-v5e-16x16": ["pretrain_base", "v5e:16x16"],
    "base-v5e-2x4": ["pretrain_base", *ON_EIGHT, "--config.run.accumulate=32"],
    "large-v5e-16x16": ["pretrain_large", "v5e:16x16"],
    "finetune/vqav2-v5e-2x4": ["finetune_vqav2", *ON_EIGHT],
    "finetune/nlvr2-v5e-2x4": ["finetune_nlvr2", *ON_EIGHT],
    "finetune/imagenet-v5e-2x4": ["finetune_imagenet", *ON_EIGHT, "--config.run.accumulate=4"],
    "finetune/captioning-coco-v5e-2x4": [
        "finetune_captioning_coco",
        *ON_EIGHT,
        "--config.task.model.remat=none",
    ],
    "finetune/retrieval-coco-v5e-2x4": [
        "finetune_retrieval_coco",
        *ON_EIGHT,
        "--config.run.accumulate=8",
    ],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("base-v5e-16x16", marks=pytest.mark.slow),
        "base-v5e-2x4",
        pytest.param("large-v5e-16x16", marks=pytest.mark.slow),
        pytest.param("finetune/vqav2-v5e-2x4", marks=pytest.mark.slow),
        pytest.param("finetune/nlvr2-v5e-2x4", marks=pytest.mark.slow),
        pytest.param("finetune/imagenet-v5e-2x4", marks=pytest.mark.slow),
        pytest.param("finetune/captioning-coco-v5e-2x4", marks=pytest.mark.slow),
        pytest.param("finetune/retrieval-coco-v5e-2x4", marks=pytest.mark.slow),
    ],
)
def test_the_formula_is_within_a_fifth_of_the_compiled_plans(name, tmp_path):
    compiled = json.loads((tiny.TOP / "docs" / "plans" / f"{name}.json").read_text())
    file, topology, *others = PLANS[name]
    arguments = [
        f"--config=configs/{file}.py",
        f"--topology={topology}",
        "--config.mesh.fsdp=16",
        *others,
    ]
    done = command(*arguments, "--estimate", f"--json={tmp_path / 'plan.json'}", path=LIBTPU)
    assert done.returncode == 0, done.stderr
    estimated = json.loads((tmp_path / "plan.json").read_text())
    assert compiled["compiled"] and not estimated["compiled"]
    assert estimated["hbm"]["total"] == pytest.approx(compiled["hbm"]["total"], rel=0.2)


def test_what_does_not_fit_is_answered_with_what_to_change():
    large = config_with(16384, model=SIZES["large"])
    pytest.importorskip("libtpu") if not LIBTPU.is_dir() else None
    done = command(
        "--config=configs/pretrain_large.py",
        "--topology=v5e:2x2",
        "--estimate",
        "--config.mesh.fsdp=1",
        # The rows of a chip do not fit even so, and two blocks are traced in less time than 24.
        "--config.task.model.depth=2",
        "--config.task.model.fused_layers=1",
        path=LIBTPU,
    )
    assert done.returncode == 2 and "does not fit into 16.0 GiB of a v5e chip" in done.stderr, (
        done.stderr
    )
    assert (
        "config.run.accumulate" in done.stderr
        and "config.mesh.fsdp" not in done.stderr.partition("\n")[0]
    )
    with pytest.raises(UsageError, match=r"task.image.batch_size=16384 .* mesh data 8"):
        make_plan(
            dataclasses.replace(large, run=RunConfig(accumulate=4096)),
            parse_topology("cpu:8"),
            False,
        )


@pytest.mark.skipif(
    not LIBTPU.is_dir(), reason="libtpu is not beside the other peers; tests/run.sh puts it there"
)
def test_the_command_compiles_for_a_tpu_that_is_not_there(tmp_path):
    out = tmp_path / "plan.json"
    done = command(*SMALL, "--topology=v5e:2x4", f"--json={out}", path=LIBTPU)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["chips"] == 8 and found["compiled"] and found["compile_seconds"] > 1
    assert (
        0 < found["mfu_plain"] <= found["mfu"] < 1
        and found["step_seconds"] <= found["step_seconds_plain"]
    )
    assert found["chip_hours"] == pytest.approx(480_000 * found["step_seconds"] * 8 / 3600)
    assert found["hbm"]["total"] == sum(
        size for name, size in found["hbm"].items() if name not in ("total", "limit")
    )
    assert any(each["blocking"] and each["seconds"] > 0 for each in found["collectives"])
    assert "estimates" in done.stdout and "MFU" in done.stdout and "Error" not in done.stderr
    how = {each["tokens"]: each["implementation"] for each in found["attention"]}
    assert how == {197: "fused", 256: "einsum"}  # 197: the visual tokenizer.
    assert "einsum, because our TPU kernels need heads that fill 128 lanes" in done.stdout
    # The compiler pads arrays this small, so the temporaries of the formula are compared with the
    # compiler's only at the sizes of docs/scale.md.
    estimated = command(*SMALL, "--topology=v5e:2x4", "--estimate", f"--json={out}", path=LIBTPU)
    assert estimated.returncode == 0, estimated.stderr
    by_formula = json.loads(out.read_text())["hbm"]
    assert all(
        by_formula[name] == found["hbm"][name]
        for name in ("parameters", "optimizer", "other", "frozen", "batch")
    )


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU.is_dir(), reason="libtpu is not beside the other peers")
def test_fine_tuning_at_480_pixels_needs_no_memory_for_logits(tmp_path):
    """By formula: 965 tokens in 12 heads have 67 MB of logits and weights in each block."""
    out, hbm = tmp_path / "plan.json", {}
    for how in ("auto", "einsum"):
        done = command(
            "--config=configs/finetune_vqav2.py",
            "--topology=v5e:2x4",
            "--estimate",
            f"--json={out}",
            "--config.task.model.depth=3",
            f"--config.task.model.attention={how}",
            path=LIBTPU,
        )
        assert done.returncode == 0, done.stderr
        hbm[how] = json.loads(out.read_text())["hbm"]["temporaries"]
        said = {"auto": "fused", "einsum": "einsum"}[how]
        assert f"attention of 965 tokens: {said}\n" in done.stdout
    rows, blocks = 128 // 8, 3
    assert hbm["einsum"] - hbm["auto"] == rows * blocks * 12 * 965**2 * (4 + 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/sample.py"], "--topology missing"),
        (["--config=configs/sample.py", "--topology=v9:2x2"], "no such chip"),
        (
            [
                "--config=configs/pretrain_base.py",
                "--topology=cpu:8",
                "--estimate",
                "--config.mesh.fsdp=3",
            ],
            "does not make the 8 devices",
        ),
        (
            [
                "--config=configs/pretrain_base.py",
                "--topology=cpu:8",
                "--json=/no/such/folder/x.json",
            ],
            "cannot be written",
        ),
        (
            ["--config=configs/pretrain_base.py", "--topology=cpu:8", "--config.task.model.dept=3"],
            "did you mean --config.task.model.depth?",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_are_usage_errors(arguments, said):
    done = command(*arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )


def test_devices_are_known_by_what_jax_calls_them():
    assert (
        device_peak("TPU v5 lite") == 197e12
        and device_peak("TPU v5") == 459e12
        and device_peak("TPU v4") == 275e12
    )
    assert device_peak("NVIDIA H100 80GB HBM3") == device_peak("NVIDIA H200") == 989.4e12
    assert (
        device_peak("NVIDIA H100 PCIe") == 756e12 and device_peak("NVIDIA A100-SXM4-40GB") == 312e12
    )
    assert (
        device_peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
        and device_peak("NVIDIA H100 NVL") is None
    )
    assert device_peak("NVIDIA L40S") is None and device_peak("NVIDIA A10G") is None
    assert device_peak("NVIDIA GeForce RTX 4090") == 165.2e12
    assert all(
        device_peak(f"NVIDIA GeForce RTX {other}") is None
        for other in ("4090 Laptop GPU", "4080 SUPER", "3070 Ti", "4090 D")
    )
    assert device_peak("cpu") is None and device_peak("TPU v99") is None
