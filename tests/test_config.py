"""The configuration: defaults, descriptions, and the way there and back."""

import dataclasses
import importlib.util
import json
import pathlib

import ml_collections
import pytest

from tests.config_values import STREAMS, TOKENIZERS, USABLE, VQKD, merged
from vlbeit_jax.config.describe import describe
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import fingerprint, to_config_dict, to_dict
from vlbeit_jax.config.schema import class_of, settings_of
from vlbeit_jax.tasks import TASKS, Config, parse
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.training.schedule import Schedule

ROOT = pathlib.Path(__file__).parents[1]


def leaves(section=None, path="config"):
    """Path, value by default and metadata of every field."""
    section = section or Config()
    for field in settings_of(section):
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
        "task": {"model": {"width": 240}, "image": {"weights": [2]}},
        "optimizer": {"peak_lr": 1},
    }
    other = parse(merged(base, changed))
    assert other.task.model.width == 240
    assert (other.optimizer.peak_lr, other.task.image.weights) == (1.0, (2.0,))
    assert parse(to_config_dict(other)) == other != config
    assert (
        fingerprint(to_dict(other))
        != fingerprint(to_dict(config))
        == fingerprint(json.loads(json.dumps(to_dict(config))))
    )


def test_what_is_not_given_is_the_default():
    default = to_dict(Config())
    given = TOKENIZERS | {name: {"sources": ("sample:pairs",)} for name in STREAMS}
    assert to_dict(parse(USABLE)) == merged(default, {"task": given})


def test_defaults_are_within_their_bounds():
    assert isinstance(to_config_dict(Config()), ml_collections.ConfigDict)
    for path, value, metadata in leaves():
        assert metadata["bound"].holds(value), path


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_usable(size):
    found = parse(merged(USABLE, {"task": {"model": SIZES[size]}}))
    assert found.task.model == ModelConfig(**SIZES[size])


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.py")), ids=lambda path: path.stem)
def test_config_files_need_nothing_but_places(path):
    """They lack tokenizers and, at most, data, all of which the command line gives."""
    values = config_file(path).to_dict()
    for section in values["task"].values():
        if isinstance(section, dict) and section.get("sources") == ():
            section["sources"] = ["somewhere"]
    tokenizers = {name: value for name, value in TOKENIZERS.items() if name in values["task"]}
    assert parse(merged(values, {"task": tokenizers}))


def test_every_field_is_described():
    lines = describe(Config(), "config").splitlines()
    for path, _, metadata in leaves():
        line = next(line for line in lines if line.startswith(f"  --{path}="))
        assert metadata["doc"] in line and metadata["bound"].text.replace("anything", "") in line
    assert len(list(leaves())) > 70


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_is_described(kind):
    text = describe(Config(), "config")
    own = describe(class_of(TASKS, kind)(), "config.task", f" (kind={kind})")
    assert own in text and class_of(TASKS, kind).kind == kind
    assert f"(one of {', '.join(TASKS)})" in text


def test_defaults_are_described():
    lines = describe(Config(), "config").splitlines()
    assert [
        path
        for path, value, _ in leaves()
        if not any(line.startswith(f"  --{path}={value}  ") for line in lines)
    ] == []


def test_whole_numbers_stand_for_fractions_and_nothing_else_does():
    config = parse(
        merged(
            USABLE,
            {"optimizer": {"peak_lr": 1, "clip_norm": 0}, "task": {"image": {"weights": (3,)}}},
        )
    )
    assert [
        type(value)
        for value in (
            config.optimizer.peak_lr,
            config.optimizer.clip_norm,
            *config.task.image.weights,
        )
    ] == [float] * 3


def test_the_largest_values_are_usable():
    changed = {
        "run": {"seed": 2**31 - 1, "steps": 2**31 - 1},
        "cluster": {"heartbeat_timeout": 10**6},
    }
    assert parse(merged(USABLE, changed)).run.seed == 2**31 - 1


def test_streams_that_are_not_used_need_nothing():
    parse(
        {
            "task": {
                "schedule": "image",
                "image": {"sources": ["p"], "num_masked_patches": 0},
                "visual_tokenizer": "V",
            }
        }
    )
    parse({"task": {"schedule": "text", "text": {"sources": ["t"]}, "text_tokenizer": "T"}})
    parse(VQKD)


def test_a_setting_has_not_the_name_of_a_method():
    """A field of a dataclass would replace the method without a word."""
    methods = {name for name in vars(Task) if callable(getattr(Task, name)) and name[0] != "_"}
    assert {"problems", "streams", "open"} <= methods
    for kind in TASKS:
        assert methods.isdisjoint(field.name for field in settings_of(class_of(TASKS, kind)))


@pytest.mark.parametrize(
    "text, cycle",
    [
        ("image", (("image",),)),
        ("image, text,pair", (("image",), ("text",), ("pair",))),
        ("text+image+pair", (("image", "pair", "text"),)),
        ("pair,image + pair", (("pair",), ("image", "pair"))),
    ],
)
def test_schedules_are_read(text, cycle):
    assert Schedule.parse(text).cycle == cycle


def test_nothing_in_a_config_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.steps = 3
    with pytest.raises(AttributeError):
        to_config_dict(Config()).run.stepz = 3
