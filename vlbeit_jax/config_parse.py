"""Between the dataclass schema, the command line and JSON: conversion, checks and help."""

import dataclasses
import difflib
import enum
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from vlbeit_jax.config import LARGEST, Config
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Special, Stream


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a config dataclass as plain, JSON-ready values (enums as their strings)."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        found[field.name] = str(value) if isinstance(value, enum.Enum) else value
    return found


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by their dotted path."""
    found = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{path}{name}.")
            if isinstance(value, Mapping)
            else {f"{path}{name}": value}
        )
    return found


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The whole tree as a locked ``ConfigDict``, so that ``--config.x.y=z`` reaches every field."""
    return ml_collections.ConfigDict(to_dict(config)).lock()


def parse(values: Any, *, to_train: bool = True) -> Config:
    """A checked ``Config`` from a ``ConfigDict`` or from parsed JSON.

    Args:
      values: some or all fields.
      to_train: also check what holds between fields and what training needs; an imported model has no data.

    Raises:
      UsageError: an unknown key, a value of the wrong type or out of bounds, or values that contradict each other; all
        of them are listed, each with its full path.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    problems: list[str] = []
    config = _parse_section(Config(), values, "config", problems)
    if not problems and to_train:
        problems += _contradictions(config)
    if problems:
        raise UsageError("the configuration cannot be used:\n  " + "\n  ".join(problems))
    return config


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def schedule_cycle(text: str) -> tuple[tuple[Stream, ...], ...]:
    """The streams of each step over one cycle: 'image,text' alternates, 'image+text' trains both in one update."""
    return tuple(
        tuple(sorted(Stream(name) for name in step.split("+")))
        for step in text.replace(" ", "").split(",")
    )


def describe(section: Any = None, path: str = "config") -> str:
    """One line a field: path, default, meaning and bound; the ``--help`` of every config."""
    section, lines = section or Config(), []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        name, doc, bound = f"{path}.{field.name}", field.metadata["doc"], field.metadata["bound"]
        if field.default_factory is not dataclasses.MISSING:
            lines += [f"\n{name}: {doc}", describe(value, name)]
        else:
            limit = f" ({bound.text})" if bound.text != "anything" else ""
            lines.append(f"  --{name}={value}  {doc}{limit}")
    return "\n".join(lines)


def _parse_section(default: Any, values: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path}={values!r}: must be a group of fields")
        return default
    fields = {field.name: field for field in dataclasses.fields(default)}
    types = typing.get_type_hints(type(default))
    parsed = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            problems.append(
                f"{path}.{name}: no such field"
                + (f"; did you mean {path}.{close[0]}?" if close else "")
            )
        elif dataclasses.is_dataclass(types[name]):
            parsed[name] = _parse_section(getattr(default, name), value, f"{path}.{name}", problems)
        else:
            _parse_value(fields[name], types[name], value, f"{path}.{name}", parsed, problems)
    return dataclasses.replace(default, **parsed)


def _parse_value(
    field: Any, wanted: Any, value: Any, path: str, parsed: dict, problems: list[str]
) -> None:
    typed = _typed(wanted, value)
    bound = field.metadata["bound"]
    if typed is None:
        if isinstance(wanted, enum.EnumType):
            needed = " | ".join(str(value) for value in list(wanted))
        else:
            needed = str(wanted) if typing.get_origin(wanted) else wanted.__name__
        problems.append(f"{path}={value!r}: must be {needed}")
    elif not bound.holds(typed):
        problems.append(f"{path}={value!r}: must be {bound.text}")
    elif type(typed) is int and abs(typed) > LARGEST:
        problems.append(f"{path}={value!r}: must be at most {LARGEST}")
    else:
        parsed[field.name] = typed


def _typed(wanted: Any, value: Any) -> Any:
    """The value as the wanted type, or None if it is of another; an int may stand for a float, nothing else."""
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        items = (
            [_typed(item, each) for each in value] if isinstance(value, (list, tuple)) else [None]
        )
        return None if any(each is None for each in items) else tuple(items)
    if isinstance(wanted, enum.EnumType):
        return wanted(value) if value in list(wanted) else None
    if wanted is float and type(value) is int:
        return float(value)
    return value if type(value) is wanted else None


def _contradictions(config: Config) -> list[str]:
    """Conditions that hold between fields."""
    run, model, visual = config.run, config.model, config.visual_tokenizer
    shape = model if config.task == "pretrain" else visual
    where = "config.model" if config.task == "pretrain" else "config.visual_tokenizer"
    rules = [
        (
            shape.image_size % shape.patch_size == 0,
            f"{where}.image_size={shape.image_size} must be a multiple of patch_size={shape.patch_size}",
        ),
        (
            shape.width % shape.heads == 0,
            f"{where}.width={shape.width} must be a multiple of heads={shape.heads}",
        ),
        (
            config.optimizer.warmup_steps < run.steps,
            f"config.optimizer.warmup_steps={config.optimizer.warmup_steps} must be below run.steps={run.steps}",
        ),
        (
            model.fused_layers <= model.depth,
            f"config.model.fused_layers={model.fused_layers} must be at most model.depth={model.depth}",
        ),
        (
            not (model.decoupled and model.fused_layers),
            f"config.model.fused_layers={model.fused_layers} must be 0 with model.decoupled: BEiT-3 has no vision-language expert",
        ),
        (
            model.pad == Special.PAD,
            f"config.model.pad={model.pad} must be {int(Special.PAD)}: data are padded with it here",
        ),
    ]
    try:
        cycle = schedule_cycle(run.schedule)
    except ValueError:
        cycle = ()
        names = ", ".join(Stream)
        rules.append(
            (
                False,
                f"config.run.schedule={run.schedule!r}: steps separated by ',', streams of a step by '+', out of {names}",
            )
        )
    used = sorted({stream for step in cycle for stream in step})
    if config.task == "vqkd" and cycle:
        rules.append(
            (
                used == [Stream.IMAGE],
                f"config.run.schedule={run.schedule!r}: VQ-KD trains on 'image' alone",
            )
        )
    for step in cycle:
        rules.append(
            (
                len(set(step)) == len(step),
                f"config.run.schedule={run.schedule!r}: a stream stands twice in one step",
            )
        )
    for name in used:
        stream, path = getattr(config.data, name), f"config.data.{name}"
        rules += [
            (
                bool(stream.sources),
                f"{path}.sources is empty: name prepared data sets, or take '{name}' out of run.schedule",
            ),
            (
                len(stream.weights) in (0, len(stream.sources)),
                f"{path}.weights: {len(stream.weights)} for {len(stream.sources)} sources",
            ),
            (
                all(weight > 0 for weight in stream.weights),
                f"{path}.weights={stream.weights}: must be > 0",
            ),
            (
                stream.batch_size % run.accumulate == 0,
                f"{path}.batch_size={stream.batch_size} must be a multiple of run.accumulate={run.accumulate}",
            ),
        ]
        if config.task == "pretrain" and name.has_image:
            rules += [
                (
                    stream.num_masked_patches <= model.patches,
                    f"{path}.num_masked_patches={stream.num_masked_patches} of only {model.patches} patches",
                ),
                (
                    stream.num_masked_patches == 0
                    or stream.mask_block <= stream.num_masked_patches,
                    f"{path}.mask_block={stream.mask_block} is larger than num_masked_patches={stream.num_masked_patches}",
                ),
            ]
        if config.task == "pretrain" and name.has_text:
            rules += [
                (
                    3 <= stream.text_length <= model.text_positions,
                    f"{path}.text_length={stream.text_length} must be in [3, model.text_positions={model.text_positions}]",
                ),
                (
                    bool(config.data.text_tokenizer),
                    "config.data.text_tokenizer is empty: a folder made by vlbeit_jax.text_tokenizer",
                ),
            ]
        if config.task == "pretrain" and name.has_image:
            named = bool(config.data.visual_tokenizer)
            rules.append(
                (
                    named,
                    "config.data.visual_tokenizer is empty: the workdir of a finished VQ-KD run, or an imported tokenizer",
                )
            )
            limited = f"{path}.views=0: tokens are kept of a number of views of each image; give that of data.visual_tokens"
            rules.append((stream.views > 0 or not config.data.visual_tokens, limited))
    return list(dict.fromkeys(text for holds, text in rules if not holds))
