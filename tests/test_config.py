"""The configuration: every mistake is found before anything starts, and all of them at once."""

import dataclasses
import importlib.util
import json
import math
import pathlib

import ml_collections
import pytest

from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import describe, fingerprint, to_config_dict, to_dict
from vlbeit_jax.config.schema import class_of, settings_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import TASKS, Config, parse
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.training.schedule import Schedule

ROOT = pathlib.Path(__file__).parents[1]
TOKENIZERS = {"text_tokenizer": "T", "visual_tokenizer": "V"}
STREAMS = ("image", "text", "pair")
USABLE = {"task": {name: {"sources": ["sample:pairs"]} for name in STREAMS} | TOKENIZERS}
VQKD = {"task": {"kind": "vqkd", "image": {"sources": ["sample:pairs"]}}}


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
    own = describe(class_of(TASKS, kind)(), "config.task")
    assert own in text and class_of(TASKS, kind).kind == kind
    assert f"--config.task.kind=pretrain  (one of {', '.join(TASKS)})" in text


def test_defaults_are_described():
    lines = describe(Config(), "config").splitlines()
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
        ("task.model.positions", "rotary", "absolute | relative"),
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
        (USABLE, {"task": {"pair": {"sources": []}}}, ["task.pair.sources", "the schedule"]),
        (USABLE, {"task": {"pair": {"weights": [1, 2]}}}, ["task.pair.weights", "2 for 1"]),
        (USABLE, {"task": {"pair": {"weights": [0]}}}, ["task.pair.weights", "> 0"]),
        (VQKD, {"run": {"accumulate": 3}}, ["task.image.batch_size=2048", "accumulate=3"]),
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
