"""Every mistake in a configuration is found before anything starts, and all of them at once."""

import math

import pytest

from tests.config_values import USABLE, VQKD, at, merged, problems
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import parse


@pytest.mark.parametrize(
    "path, suggestion",
    [
        ("run.stepz", "config.run.steps"),
        ("optimiser", "config.optimizer"),
        ("task.image.batchsize", "config.task.image.batch_size"),
        ("task.image.masked_patches", "config.task.image.num_masked_patches"),  # Its former name.
        ("task.zzz", None),
    ],
)
def test_unknown_keys_are_named_with_the_nearest_known_one(path, suggestion):
    (line,) = problems(merged(USABLE, at(path, 1)))
    assert line.startswith(f"config.{path}: no such field")
    assert line.endswith(f"did you mean {suggestion}?") if suggestion else "mean" not in line


@pytest.mark.parametrize(
    "path, value, needed",
    [
        ("run.steps", "3", "int"),
        ("run.steps", 3.0, "int"),
        ("run.steps", True, "int"),
        ("run.steps", None, "int"),
        ("optimizer.peak_lr", "1e-3", "float"),
        ("optimizer.peak_lr", True, "float"),
        ("optimizer.peak_lr", [1.0], "float"),
        ("task.schedule", 3, "str"),
        ("task.text_tokenizer", None, "str"),
        ("task.text.whole_words", 1, "bool"),
        ("task.text.whole_words", "yes", "bool"),
        ("task.model.positions", "rotary", "one of absolute, relative"),
        ("task.model.positions", 0, "absolute"),
        ("task.image.sources", "sample:pairs", "str"),
        ("task.image.sources", [1], "str"),
        ("task.image.weights", ["1"], "float"),
        ("run", 3, ""),
        ("run", None, ""),
        ("task.image", ["sample:pairs"], ""),
    ],
)
def test_wrong_types_are_named_with_what_is_needed(path, value, needed):
    (line,) = problems(merged(USABLE, at(path, value)))
    said = f"config.{path}={value!r}: must be "
    assert line.startswith(said) and needed in line.removeprefix(said)


@pytest.mark.parametrize(
    "path, value",
    [
        ("run.steps", 0),
        ("run.seed", -1),
        ("run.log_every", 0),
        ("optimizer.peak_lr", 0),
        ("optimizer.peak_lr", math.nan),
        ("optimizer.beta2", 1),
        ("optimizer.eps", 0.0),
        ("task.model.drop_path", 1.0),
        ("task.model.width", -8),
        ("task.model.matmul", "float16"),
        ("task.pair.masked_text", 1.5),
        ("task.pair.masked_text", math.nan),
        ("task.image.crop_scale", -0.1),
        ("loader.workers", -1),
        ("run.seed", 2**31),
        ("run.steps", 2**31),
        ("task.model.vocabulary", 10**30),
        ("mesh.data", -(2**31)),
        ("cluster.initialization_timeout", 0),
        ("cluster.shutdown_timeout", 10**6 + 1),
        ("mesh.data", 0),
        ("mesh.data", -2),
        ("mesh.fsdp", 0),
        ("task.kind", "finetune"),
        ("task.tokenizer_model.teacher", "resnet"),
    ],
)
def test_bounds_hold(path, value):
    (line,) = problems(merged(USABLE, at(path, value)))
    assert line.startswith(f"config.{path}={value!r}: must be ")


@pytest.mark.parametrize(
    "base, changed, said",
    [
        (USABLE, {"task": {"model": {"patch_size": 15}}}, ["224", "15", "patch_size"]),
        (USABLE, {"task": {"model": {"heads": 5}}}, ["768", "5", "heads"]),
        (VQKD, {"task": {"model": {"heads": 5}}}, ["768", "5", "heads"]),
        (USABLE, {"task": {"model": {"fused_layers": 13}}}, ["fused_layers=13", "depth=12"]),
        (USABLE, {"run": {"steps": 100}}, ["warmup_steps=10000", "steps=100"]),
        (USABLE, {"task": {"schedule": "image,audio"}}, ["schedule", "audio", "image, text, pair"]),
        (USABLE, {"task": {"schedule": ""}}, ["schedule", "image, text, pair"]),
        (USABLE, {"task": {"schedule": "image+image"}}, ["schedule", "twice"]),
        (VQKD, {"task": {"schedule": "image"}}, ["config.task.schedule: no such field"]),
        (VQKD, {"task": {"image": {"sources": []}}}, ["config.task.image.sources"]),
        (
            USABLE,
            {"task": {"pair": {"sources": []}}},
            ["task.pair.sources is empty"],
        ),
        (USABLE, {"task": {"pair": {"weights": [1, 2]}}}, ["task.pair.weights", "2 for 1"]),
        (USABLE, {"task": {"pair": {"weights": [0]}}}, ["task.pair.weights", "> 0"]),
        (VQKD, {"run": {"accumulate": 3}}, ["task.image.batch_size=2048", "accumulate=3"]),
        (VQKD, {"optimizer": {"ema_decay": 0.9}}, ["ema_decay=0.9", "codebook", "set it to 0"]),
        (
            USABLE,
            {"task": {"image": {"num_masked_patches": 197}}},
            ["task.image.num_masked_patches=197", "196"],
        ),
        (
            USABLE,
            {"task": {"image": {"mask_block": 76}}},
            ["task.image.mask_block=76", "num_masked_patches=75"],
        ),
        (
            USABLE,
            {"task": {"text": {"text_length": 129}}},
            ["task.text.text_length=129", "text_positions=128"],
        ),
        (USABLE, {"task": {"pair": {"text_length": 2}}}, ["task.pair.text_length=2", "[3, "]),
        (
            USABLE,
            {"task": {"text_tokenizer": ""}},
            ["task.text_tokenizer", "vlbeit_jax.text_tokenizer"],
        ),
        (USABLE, {"task": {"visual_tokenizer": ""}}, ["task.visual_tokenizer", "VQ-KD"]),
    ],
)
def test_contradictions_are_named(base, changed, said):
    (line,) = problems(merged(base, changed))
    assert all(word in line for word in said), line


def test_all_problems_are_listed_at_once():
    found = problems(
        {
            "run": {"stepz": 1, "seed": -1},
            "optimizer": {"peak_lr": "x"},
            "modle": {},
            "mesh": {"data": 0},
        }
    )
    assert [line.split("=")[0].split(":")[0] for line in found] == [
        "config.run.stepz",
        "config.run.seed",
        "config.optimizer.peak_lr",
        "config.modle",
        "config.mesh.data",
    ]
    found = problems(
        merged(
            USABLE,
            {
                "run": {"steps": 100},
                "task": {"model": {"vocabulary": 7}, "pair": {"sources": []}, "text_tokenizer": ""},
            },
        )
    )
    assert len(found) == 3


def test_a_wrong_schedule_hides_no_other_contradiction():
    assert (
        len(problems(merged(USABLE, {"task": {"schedule": "audio", "model": {"heads": 5}}}))) == 2
    )


def test_contradictions_are_named_by_their_full_paths():
    changed = {
        "run": {"steps": 100},
        "task": {"model": {"heads": 5, "patch_size": 15, "fused_layers": 13}},
    }
    for line in problems(merged(USABLE, changed)):
        assert line.startswith("config.")


def test_a_configuration_of_the_former_layout_is_refused_with_its_version():
    with pytest.raises(UsageError, match=r"'vqkd' is a name, as in vlbeit_jax 0\.1\.0; now"):
        parse({"task": "vqkd", "visual_tokenizer": {"codes": 3}})
