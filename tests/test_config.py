"""The configuration: every mistake is found before anything starts, and all of them at once."""

import dataclasses
import importlib.util
import json
import math
import pathlib

import ml_collections
import pytest

from vlbeit_jax.config import SIZES, Config, ModelConfig
from vlbeit_jax.config_parse import (
    describe,
    fingerprint,
    to_config_dict,
    to_dict,
)
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import parse
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.types import Positions, Stream

ROOT = pathlib.Path(__file__).parents[1]
TOKENIZERS = {"text_tokenizer": "T", "visual_tokenizer": "V"}
USABLE = {"data": {str(name): {"sources": ["sample:pairs"]} for name in Stream} | TOKENIZERS}
VQKD = {
    "task": "vqkd",
    "run": {"schedule": "image"},
    "data": {"image": {"sources": ["sample:pairs"]}},
}


def merged(base, changed):
    """``base`` with some leaves changed or added."""
    both = dict(base)
    for key, value in changed.items():
        both[key] = (
            merged(both[key], value)
            if isinstance(value, dict) and isinstance(both.get(key), dict)
            else value
        )
    return both


def at(path, value):
    """{"a": {"b": value}} for "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def problems(values):
    with pytest.raises(UsageError) as error:
        parse(values)
    first, *rest = str(error.value).splitlines()
    assert first == "the configuration cannot be used:"
    return [line.strip() for line in rest]


def leaves(section=None, path="config"):
    """Path, value by default and metadata of every field."""
    section = section or Config()
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}.{field.name}")
        else:
            yield f"{path}.{field.name}", value, field.metadata


def config_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("base", [USABLE, VQKD], ids=["pretrain", "vqkd"])
def test_there_and_back_is_the_identity(base):
    config = parse(base)
    assert (
        parse(to_config_dict(config)) == config
        and parse(json.loads(json.dumps(to_dict(config)))) == config
    )
    changed = {
        "model": {"positions": "relative"},
        "optimizer": {"peak_lr": 1},
        "data": {"image": {"weights": [2]}},
    }
    other = parse(merged(base, changed))
    assert (other.model.positions, other.optimizer.peak_lr, other.data.image.weights) == (
        Positions.RELATIVE,
        1.0,
        (2.0,),
    )
    assert parse(to_config_dict(other)) == other != config
    assert (
        fingerprint(to_dict(other))
        != fingerprint(to_dict(config))
        == fingerprint(json.loads(json.dumps(to_dict(config))))
    )


def test_what_is_not_given_is_the_default():
    default = to_dict(Config())
    assert to_dict(parse(USABLE)) == merged(
        default,
        {"data": TOKENIZERS | {str(name): {"sources": ("sample:pairs",)} for name in Stream}},
    )


def test_defaults_are_within_their_bounds():
    assert isinstance(to_config_dict(Config()), ml_collections.ConfigDict)
    for path, value, metadata in leaves():
        assert metadata["bound"].holds(value), path


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_usable(size):
    assert dataclasses.asdict(
        parse(merged(USABLE, {"model": SIZES[size]})).model
    ) == dataclasses.asdict(ModelConfig(**SIZES[size]))


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.py")), ids=lambda path: path.stem)
def test_config_files_need_nothing_but_places(path):
    """They lack tokenizers and, at most, data, all of which the command line gives."""
    values = config_file(path).to_dict()
    for name in Stream:
        if not values["data"][name]["sources"]:
            values["data"][name]["sources"] = ["somewhere"]
    assert parse(merged(values, {"data": TOKENIZERS}))


def test_every_field_is_described():
    lines = describe().splitlines()
    for path, _, metadata in leaves():
        (line,) = (line for line in lines if line.startswith(f"  --{path}="))
        assert metadata["doc"] in line and metadata["bound"].text.replace("anything", "") in line
    assert len([line for line in lines if line.startswith("  --")]) == len(list(leaves())) > 70


def test_defaults_are_described():
    lines = describe().splitlines()
    assert [
        path
        for path, value, _ in leaves()
        if not any(line.startswith(f"  --{path}={value}  ") for line in lines)
    ] == []


@pytest.mark.parametrize(
    "path, suggestion",
    [
        ("run.stepz", "config.run.steps"),
        ("optimiser", "config.optimizer"),
        ("data.image.batchsize", "config.data.image.batch_size"),
        ("data.image.masked_patches", "config.data.image.num_masked_patches"),  # Its former name.
        ("model.zzz", None),
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
        ("run.schedule", 3, "str"),
        ("data.text_tokenizer", None, "str"),
        ("data.text.whole_words", 1, "bool"),
        ("data.text.whole_words", "yes", "bool"),
        ("model.positions", "rotary", "absolute | relative"),
        ("model.positions", 0, "absolute"),
        ("data.image.sources", "sample:pairs", "str"),
        ("data.image.sources", [1], "str"),
        ("data.image.weights", ["1"], "float"),
        ("run", 3, ""),
        ("run", None, ""),
        ("data.image", ["sample:pairs"], ""),
    ],
)
def test_wrong_types_are_named_with_what_is_needed(path, value, needed):
    (line,) = problems(merged(USABLE, at(path, value)))
    said = f"config.{path}={value!r}: must be "
    assert line.startswith(said) and needed in line.removeprefix(said)


def test_whole_numbers_stand_for_fractions_and_nothing_else_does():
    config = parse(
        merged(
            USABLE,
            {"optimizer": {"peak_lr": 1, "clip_norm": 0}, "data": {"image": {"weights": (3,)}}},
        )
    )
    assert [
        type(value)
        for value in (
            config.optimizer.peak_lr,
            config.optimizer.clip_norm,
            *config.data.image.weights,
        )
    ] == [float] * 3


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
        ("model.drop_path", 1.0),
        ("model.width", -8),
        ("model.matmul", "float16"),
        ("data.pair.masked_text", 1.5),
        ("data.pair.masked_text", math.nan),
        ("data.image.crop_scale", -0.1),
        ("data.workers", -1),
        ("run.seed", 2**31),
        ("run.steps", 2**31),
        ("model.vocabulary", 10**30),
        ("mesh.data", -(2**31)),
        ("cluster.initialization_timeout", 0),
        ("cluster.shutdown_timeout", 10**6 + 1),
        ("mesh.data", 0),
        ("mesh.data", -2),
        ("mesh.fsdp", 0),
        ("task", "finetune"),
        ("visual_tokenizer.teacher", "resnet"),
    ],
)
def test_bounds_hold(path, value):
    (line,) = problems(merged(USABLE, at(path, value)))
    assert line.startswith(f"config.{path}={value!r}: must be ")


@pytest.mark.parametrize(
    "base, changed, said",
    [
        (USABLE, {"model": {"patch_size": 15}}, ["224", "15", "patch_size"]),
        (USABLE, {"model": {"heads": 5}}, ["768", "5", "heads"]),
        (VQKD, {"visual_tokenizer": {"heads": 5}}, ["768", "5", "heads"]),
        (USABLE, {"model": {"fused_layers": 13}}, ["fused_layers=13", "depth=12"]),
        (USABLE, {"run": {"steps": 100}}, ["warmup_steps=10000", "steps=100"]),
        (USABLE, {"run": {"schedule": "image,audio"}}, ["schedule", "audio", "image, text, pair"]),
        (USABLE, {"run": {"schedule": ""}}, ["schedule", "image, text, pair"]),
        (USABLE, {"run": {"schedule": "image+image"}}, ["schedule", "twice"]),
        (
            VQKD,
            {"run": {"schedule": "image,pair"}, "data": {"pair": {"sources": ["p"]}}},
            ["schedule", "'image' alone"],
        ),
        (USABLE, {"data": {"pair": {"sources": []}}}, ["data.pair.sources", "run.schedule"]),
        (USABLE, {"data": {"pair": {"weights": [1, 2]}}}, ["data.pair.weights", "2 for 1"]),
        (USABLE, {"data": {"pair": {"weights": [0]}}}, ["data.pair.weights", "> 0"]),
        (VQKD, {"run": {"accumulate": 3}}, ["data.image.batch_size=2048", "accumulate=3"]),
        (
            USABLE,
            {"data": {"image": {"num_masked_patches": 197}}},
            ["data.image.num_masked_patches=197", "196"],
        ),
        (
            USABLE,
            {"data": {"image": {"mask_block": 76}}},
            ["data.image.mask_block=76", "num_masked_patches=75"],
        ),
        (
            USABLE,
            {"data": {"text": {"text_length": 129}}},
            ["data.text.text_length=129", "text_positions=128"],
        ),
        (USABLE, {"data": {"pair": {"text_length": 2}}}, ["data.pair.text_length=2", "[3, "]),
        (
            USABLE,
            {"data": {"text_tokenizer": ""}},
            ["data.text_tokenizer", "vlbeit_jax.text_tokenizer"],
        ),
        (USABLE, {"data": {"visual_tokenizer": ""}}, ["data.visual_tokenizer", "VQ-KD"]),
    ],
)
def test_contradictions_are_named(base, changed, said):
    (line,) = problems(merged(base, changed))
    assert all(word in line for word in said), line


def test_the_largest_values_are_usable():
    changed = {
        "run": {"seed": 2**31 - 1, "steps": 2**31 - 1},
        "cluster": {"heartbeat_timeout": 10**6},
    }
    assert parse(merged(USABLE, changed)).run.seed == 2**31 - 1


def test_streams_that_are_not_used_need_nothing():
    parse(
        {
            "run": {"schedule": "image"},
            "data": {"image": {"sources": ["p"], "num_masked_patches": 0}, "visual_tokenizer": "V"},
        }
    )
    parse(
        {"run": {"schedule": "text"}, "data": {"text": {"sources": ["t"]}, "text_tokenizer": "T"}}
    )
    parse(VQKD)


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
                "model": {"heads": 5, "fused_layers": 13},
                "data": {"pair": {"sources": []}},
            },
        )
    )
    assert len(found) == 4


def test_a_wrong_schedule_hides_no_other_contradiction():
    assert (
        len(
            problems(
                merged(USABLE, {"run": {"schedule": "audio", "steps": 100}, "model": {"heads": 5}})
            )
        )
        == 3
    )


def test_contradictions_are_named_by_their_full_paths():
    changed = {
        "run": {"steps": 100},
        "model": {"heads": 5, "patch_size": 15, "fused_layers": 13},
        "data": {"pair": {"sources": []}},
    }
    for line in problems(merged(USABLE, changed)):
        assert line.startswith("config.")


@pytest.mark.parametrize(
    "text, cycle",
    [
        ("image", ((Stream.IMAGE,),)),
        ("image, text,pair", ((Stream.IMAGE,), (Stream.TEXT,), (Stream.PAIR,))),
        ("text+image+pair", ((Stream.IMAGE, Stream.PAIR, Stream.TEXT),)),
        ("pair,image + pair", ((Stream.PAIR,), (Stream.IMAGE, Stream.PAIR))),
    ],
)
def test_schedules_are_read(text, cycle):
    assert Schedule.parse(text).cycle == cycle


def test_nothing_in_a_config_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.steps = 3
    with pytest.raises(AttributeError):
        to_config_dict(Config()).run.stepz = 3
