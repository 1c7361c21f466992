"""BEiT-3's names, as torchscale's ``BEiT3`` has them (tables: ``beit3_tables``).

A model with shared attention is exported as two state dicts. One is for images and texts; the
other, for pairs, has the vision-language expert as A and B of the top blocks. LayerScale is folded
into the projections that it scales, modality types into positions. A decoupled model, such as an
imported BEiT-3, is exported and imported as it is.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.base import Export, Import
from vlbeit_jax.convert.formats.beit import fold_pixels
from vlbeit_jax.convert.formats.beit3_check import FUSION_FILE, WEIGHTS_FILE, check
from vlbeit_jax.convert.formats.beit3_tables import EMBED, ENCODER, UNUSED_ROWS, table
from vlbeit_jax.convert.formats.beit3_words import read_words
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    count_matches,
    exact_sqrt,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_model, no_assets
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Arrays, Report, Table, export
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import FUSED, experts_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.types import Modality, Positions, Special

PAD, EPS = 1, 1e-5  # Of every published BEiT-3.
FORM, SHARED_FORM = "form", "shared"
NOTED = {"heads": int, "norm_eps": float, "pad": int}  # Our exports note what no shape tells.
CLASSIFIER = "fc_norm.weight"  # Of BEiT-3's ImageNet models alone.
OTHER_HEADS = ("pooler.", "head.", "fc_norm.", "vision_head.", "language_head.", "logit_scale")


# Parts that some files lack, by the beginning of their names, and why they are fresh then.
OF_SOME = {
    "mim_head.": "the file has no head for visual tokens",
    "mlm_head.": "the file has no head for word pieces",
    f"{ENCODER}.layer_norm.": "the file has no last norm; ours starts as the identity",
}


def _leave_out_rest(table: Table, params: Iterable[str]) -> Table:
    """Leaves out what is folded, and experts that are in the other state dict."""
    used = {name for each in table.rules for name in each.jax}
    experts = {FUSED, *map(str, Modality)}
    reasons = {}
    for name in set(params) - used:
        if name.endswith(("_scale", "/type")):
            reasons[name] = "folded into what it is multiplied with or added to"
        elif experts & set(name.split("/")):
            reasons[name] = "in the other state dict"
    return dataclasses.replace(table, left_out=reasons)


def fold(config: ModelConfig, params: Arrays) -> dict[str, np.ndarray]:
    """Returns the same network with LayerScale in the projections and types in the positions."""
    folded = dict(params)
    for part in ("vision_embed", "text_embed"):
        folded[f"{part}/positions"] = params[f"{part}/positions"] + params[f"{part}/type"]
    for block in range(config.depth if config.layer_scale else 0):
        jax = f"encoder/block_{block}"
        for name in ("out", "out_bias"):
            name = f"{jax}/attention/{name}"
            folded[name] = params[name] * params[f"{jax}/attention_scale"]
        for expert in experts_of(config, block):
            for part in ("kernel", "bias"):
                name = f"{jax}/{expert}/down/{part}"
                folded[name] = params[name] * params[f"{jax}/expert_scale"]
    return folded


def require(run: Run) -> None:
    """Raises a ``UsageError`` for relative positions, and for forms between ours and BEiT-3's."""
    config = run.model
    if config.positions is not Positions.ABSOLUTE:
        raise UsageError(
            "--to=beit3 does not support task.model.positions=relative; torchscale's BEiT3 has no "
            "relative bias"
        )
    if config.layer_scale if config.decoupled else config.sub_norm:
        raise UsageError(
            f"--to=beit3 does not support task.model.decoupled={config.decoupled} with "
            f"sub_norm={config.sub_norm} and layer_scale={config.layer_scale:g}. It takes our "
            "standard model (decoupled=False, sub_norm=False) or BEiT-3 (decoupled=True, "
            "layer_scale=0)"
        )


def write(run: Run, folder: pathlib.Path) -> None:
    """Writes the state dicts, and the arguments of torchscale's ``EncoderConfig`` as JSON."""
    config = run.model
    params = fold(config, run.params)
    notes = {"format": "pt", FORM: "decoupled" if config.decoupled else SHARED_FORM}
    notes |= {name: str(getattr(config, name)) for name in NOTED}
    files = {WEIGHTS_FILE: False}
    if not config.decoupled:
        files[FUSION_FILE] = True
    for name, fusion in files.items():
        rules = _leave_out_rest(table(config, fusion), params)
        write_safetensors(folder / name, export(rules, params), notes)
    (folder / "config.json").write_text(json.dumps(encoder_arguments(config), indent=1) + "\n")


def encoder_arguments(config: ModelConfig) -> dict[str, Any]:
    """Returns keyword arguments of torchscale's ``EncoderConfig`` for these weights."""
    return {
        "multiway": True,
        "encoder_embed_dim": config.width,
        "encoder_attention_heads": config.heads,
        "encoder_ffn_embed_dim": config.ffn_width,
        "encoder_layers": config.depth,
        "subln": config.sub_norm,
        "layernorm_eps": config.norm_eps,
        "vocab_size": config.vocabulary,
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "max_source_positions": config.text_positions + UNUSED_ROWS,
        "no_output_layer": True,
    }


def config_of(file: TensorFile, options: ImportOptions) -> ModelConfig:
    """Infers the decoupled model from tensor shapes.

    What no shape tells comes from the notes of our own exports; other files are taken to be as
    every published BEiT-3.

    Raises:
      UsageError: the file does not have BEiT-3's names, or is one of the two state dicts of a model
        with shared attention.
    """
    shapes, notes, first = file.shapes, file.metadata, f"{ENCODER}.layers.0"
    if notes.get(FORM) == SHARED_FORM:
        raise UsageError(
            f"--format=beit3: the file is {WEIGHTS_FILE} or {FUSION_FILE} of a model with shared "
            "attention. Each holds a part of the model, with types and LayerScale folded. Start "
            "from the run that was exported: --config.run.start_from=RUN"
        )
    ranks = {
        f"{EMBED}.proj.weight": 4,
        "beit3.text_embed.weight": 2,
        f"{first}.ffn.A.fc1.weight": 2,
        f"{ENCODER}.embed_positions.A.weight": 2,
        f"{ENCODER}.embed_positions.B.weight": 2,
        f"{first}.self_attn_layer_norm.A.weight": 1,
    }
    kernel, (vocabulary, _), (ffn_width, _), (patch_rows, _), (text_rows, _), _ = require_shapes(
        "BEiT-3 checkpoint", shapes, ranks
    )
    width, _, patch_size, _ = kernel
    grid = exact_sqrt(patch_rows - UNUSED_ROWS - 1)  # One of the positions is CLS.
    if not grid:
        raise UsageError(
            f"not a BEiT-3 checkpoint: {ENCODER}.embed_positions.A.weight has {patch_rows} rows, "
            "which no square image has"
        )
    read = {"norm_eps": EPS, "pad": PAD}
    read |= {name: kind(notes[name]) for name, kind in NOTED.items() if name in notes}
    if "heads" in notes:
        read["heads"] = options.agree("heads", int(notes["heads"]))
    else:
        read["heads"] = options.count_heads(width)
    if "mim_head.weight" in shapes:
        read["codes"] = options.agree("codes", shapes["mim_head.weight"][0])
    return options.model_config(
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=count_matches(shapes, rf"{ENCODER}\.layers\.\d+\.self_attn_layer_norm\.A\.weight"),
        ffn_width=ffn_width,
        fused_layers=0,
        text_positions=text_rows - UNUSED_ROWS,
        layer_scale=0.0,
        sub_norm=f"{first}.ffn.A.ffn_layernorm.weight" in shapes,
        decoupled=True,
        vocabulary=vocabulary,
        **read,
    )


def import_table(config: ModelConfig, tensors: Iterable[str]) -> Table:
    """The table for a file; a head or the last norms that the file lacks are left out.

    BEiT-3's models for questions and for ImageNet have no last norm (``normalize_output`` is off in
    its published code); those for pairs of images, retrieval and captions keep it.
    """
    whole, left_out = table(config), {}
    tensors = list(tensors)
    for part, reason in OF_SOME.items():
        if not any(name.startswith(part) for name in tensors):
            absent = [each for each in whole.rules if " ".join(each.torch).startswith(part)]
            left_out |= {name: reason for each in absent for name in each.jax}
    rules = [each for each in whole.rules if not set(each.jax) & set(left_out)]
    others = [name for name in tensors if name.startswith(OTHER_HEADS)]
    return Table(rules, left_out, {}, dict.fromkeys(others, "a head of fine-tuning"))


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    words = None
    if options.text_tokenizer is not None:
        words = read_words(place(options.text_tokenizer, "--text_tokenizer"))
        file = words.reorder(file)
    config = config_of(file, options)
    if words:
        config = dataclasses.replace(config, pad=int(Special.PAD))
    # Of BEiT-3's models, those for ImageNet alone take pixels in ImageNet's normalisation.
    if CLASSIFIER in file.tensors:
        file = fold_pixels(file, f"{EMBED}.proj.weight", f"{EMBED}.proj.bias")
    save_words = words.save if words else no_assets
    return import_model(path, file, import_table(config, file.tensors), config, out, save_words)


EXPORT = Export(
    takes="pretraining runs",
    exact="images and texts in one state dict, pairs in the other; a decoupled model in one",
    needs="absolute positions; torchscale to verify it",
    drops="nothing: types and LayerScale are folded",
    peers=("torch", "torchscale"),
    require=require,
    write=write,
    check=check,
)
IMPORT = Import(
    exact="all of it: images, texts, pairs, heads",
    gives="a model to use and to export, and a start for pretraining; without --text_tokenizer, "
    "its words must start fresh (docs/adapt.md)",
    drops="heads of fine-tuning; a last norm that the file lacks starts as the identity",
    read=_read,
    flags=("heads", "codes", "text_tokenizer"),
)
