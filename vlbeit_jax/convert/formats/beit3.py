"""BEiT-3's names, as torchscale's ``BEiT3`` has them: what is written, and what is read (tables: ``beit3_tables``).

Our standard model goes out as two state dicts: unimodal (A vision, B language), and fusion, where the top blocks have the
vision-language expert in both places. LayerScale is folded into the projections it scales, modality types into positions. A
decoupled model (imported BEiT-3) goes both ways as it is.
"""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.beit3_tables import EMBED, ENCODER, UNUSED_ROWS, table
from vlbeit_jax.convert.rules import Changed, Shape, Table, TensorFile, Tensors, exported
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import FUSED, experts_of
from vlbeit_jax.convert.unsaid import Unsaid, required, root
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Modality, Positions

WEIGHTS_FILE, FUSION_FILE = "beit3.safetensors", "beit3_fusion.safetensors"
PAD, EPS = 1, 1e-5  # Of every published BEiT-3.
FORM, SHARED_FORM = "form", "shared"
NOTED = {
    "heads": int,
    "norm_eps": float,
    "pad": int,
}  # What no shape says, in the notes of our files.
OTHER_HEADS = ("pooler.", "head.", "fc_norm.", "vision_head.", "language_head.", "logit_scale")


def _left_out(table: Table, names: Mapping[str, Shape]) -> Table:
    """The table with what this state dict has no place for: the other one's experts, and what is folded."""
    used = {name for each in table.rules for name in each.ours}
    experts = {FUSED, *map(str, Modality)}
    reasons = {}
    for name in set(names) - used:
        if name.endswith(("_scale", "/type")):
            reasons[name] = "folded into what it is multiplied with or added to"
        elif experts & set(name.split("/")):
            reasons[name] = "in the other state dict"
    return Table(table.rules, reasons, table.constant)


def folded(config: ModelConfig, params: Tensors) -> Tensors:
    """The same network with LayerScale in the projections and types in the positions."""
    changes: dict[str, Callable[[Tensors], np.ndarray]] = {
        f"{embed}/positions": lambda leaves, embed=embed: (
            leaves[f"{embed}/positions"] + leaves[f"{embed}/type"]
        )
        for embed in ("vision_embed", "text_embed")
    }
    if config.layer_scale:
        for block in range(config.depth):
            place = f"encoder/block_{block}"
            scaled = {
                f"{place}/attention/{name}": f"{place}/attention_scale"
                for name in ("out", "out_bias")
            }
            experts = experts_of(config, block)
            scaled |= {
                f"{place}/{name}/down/{part}": f"{place}/expert_scale"
                for name in experts
                for part in ("kernel", "bias")
            }
            changes |= {
                name: lambda leaves, name=name, scale=scale: leaves[name] * leaves[scale]
                for name, scale in scaled.items()
            }
    return Changed(params, changes)


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model adds a relative bias, which BEiT3 does not, or is something between ours and BEiT-3."""
    config = run.model
    if config.positions is not Positions.ABSOLUTE:
        raise UsageError(
            "--to=beit3: model.positions=relative has no place in torchscale's BEiT3, which adds no relative bias"
        )
    if config.layer_scale if config.decoupled else config.sub_norm:
        raise UsageError(
            f"--to=beit3: model.decoupled={config.decoupled}, sub_norm={config.sub_norm}, layer_scale={config.layer_scale:g} are neither "
            "our standard model (no, no, any) nor BEiT-3 (yes, any, 0)"
        )


def write(run: Run, folder: pathlib.Path) -> None:
    """State dicts, and the arguments of torchscale's ``EncoderConfig`` as JSON."""
    config = run.model
    params = folded(config, run.params)
    notes = {"format": "pt", FORM: "decoupled" if config.decoupled else SHARED_FORM}
    notes |= {name: str(getattr(config, name)) for name in NOTED}
    for name, fusion in ((WEIGHTS_FILE, False), (FUSION_FILE, True))[
        : 1 if config.decoupled else 2
    ]:
        rules = _left_out(table(config, fusion), params.shapes)
        write_safetensors(folder / name, exported(rules, params), notes)
    (folder / "config.json").write_text(json.dumps(encoder_arguments(config), indent=1) + "\n")


def encoder_arguments(config: ModelConfig) -> dict[str, Any]:
    """Keyword arguments of torchscale's ``EncoderConfig`` for these weights."""
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


def config_of(file: TensorFile, unsaid: Unsaid) -> ModelConfig:
    """The decoupled model that a file speaks of: by its notes if it is one of ours, otherwise as every published BEiT-3 is.

    Raises:
      UsageError: the file has not BEiT-3's names, or is one of the two that a model of ours with shared attention is written as.
    """
    theirs, notes, first = file.shapes, file.metadata, f"{ENCODER}.layers.0"
    if notes.get(FORM) == SHARED_FORM:
        raise UsageError(
            f"--format=beit3: the file is {WEIGHTS_FILE} or {FUSION_FILE} of a model with shared attention, of which each holds a part "
            "with its types and LayerScale folded; start from the run that was exported: --config.run.start_from=RUN"
        )
    (
        (width, _, patch_size, _),
        (vocabulary, _),
        (ffn_width, _),
        (patch_rows, _),
        (text_rows, _),
        *_,
    ) = required(
        "BEiT-3 checkpoint",
        theirs,
        {f"{EMBED}.proj.weight": 4, "beit3.text_embed.weight": 2, f"{first}.ffn.A.fc1.weight": 2}
        | {f"{ENCODER}.embed_positions.{side}.weight": 2 for side in "AB"}
        | {f"{first}.self_attn_layer_norm.A.weight": 1},
    )
    grid = root(patch_rows - UNUSED_ROWS - 1)
    if not grid:
        raise UsageError(
            f"no BEiT-3 checkpoint: {ENCODER}.embed_positions.A.weight has {patch_rows} rows, which are no square image's"
        )
    noted = {name: kind(notes[name]) for name, kind in NOTED.items() if name in notes}
    heads = (
        unsaid.agreed("heads", int(noted["heads"])) if "heads" in noted else unsaid.heads_of(width)
    )
    return unsaid.model(
        **{"norm_eps": EPS, "pad": PAD} | noted | {"heads": heads},
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=len(
            [
                name
                for name in theirs
                if re.fullmatch(rf"{ENCODER}\.layers\.\d+\.self_attn_layer_norm\.A\.weight", name)
            ]
        ),
        ffn_width=ffn_width,
        fused_layers=0,
        text_positions=text_rows - UNUSED_ROWS,
        layer_scale=0.0,
        sub_norm=f"{first}.ffn.A.ffn_layernorm.weight" in theirs,
        decoupled=True,
        vocabulary=vocabulary,
        **(
            {"codes": unsaid.agreed("codes", theirs["mim_head.weight"][0])}
            if "mim_head.weight" in theirs
            else {}
        ),
    )


def read(theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]) -> tuple[Table, Tensors]:
    """The table for a file, and its tensors; a head that the file lacks starts afresh."""
    whole, left_out = table(config), {}
    for ours, head in (("vision_head", "mim_head"), ("language_head", "mlm_head")):
        if f"{head}.weight" not in theirs.shapes:
            left_out |= {
                f"{ours}/{part}": "the file has no such head" for part in ("kernel", "bias")
            }
    ignored = {
        name: "a head of fine-tuning" for name in theirs.shapes if name.startswith(OTHER_HEADS)
    }
    return Table(
        [each for each in whole.rules if not set(each.ours) & set(left_out)], left_out, {}, ignored
    ), theirs
