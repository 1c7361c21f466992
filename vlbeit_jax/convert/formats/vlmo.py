"""VLMo's names: what its published checkpoints hold, for models with relative positions."""

import pathlib
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.layouts import (
    TOKEN,
    layer_columns,
    patches,
    stacked,
    vocabulary_rows,
)
from vlbeit_jax.convert.opening import open_tensors
from vlbeit_jax.convert.reference import Net
from vlbeit_jax.convert.rules import Changed, Shape, Table, Tensors, exported, rule
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import beit_attention, beit_expert, experts_of, norm, refuse_beit3
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import LAYER_NORM_EPS, padded_vocabulary
from vlbeit_jax.types import Positions, Special

EXPERTS = {"vision": "imag", "language": "text", "vision_language": "vl"}
NO_PLACE = "VLMo has no masked image modelling, and another head for texts"
WORDS, INNER_TYPES = "text_embeddings.word_embeddings.weight", "text_embeddings.token_type_embeddings.weight"
WEIGHTS_FILE = "vlmo.safetensors"
OTHER_HEADS = ("pooler.", "mlm_score.", "itm_score.", "itc_", "vqa_classifier.", "nlvr2_classifier.", "logit_")
INDICES = ("relative_position_index", "text_relative_position_index", "text_imag_relative_position_index")


def table(config: ModelConfig, names: Mapping[str, Shape]) -> Table:
    """All but the mask token and the heads; ``names`` are those of a file that is read (none: to be written)."""
    heads, width = config.heads, config.width
    rules = [
        rule("text_embed/type vision_embed/type", "token_type_embeddings.weight", stacked(2)),
        rule("text_embed/words", WORDS, vocabulary_rows(config.vocabulary, padded_vocabulary(config.vocabulary))),
        *norm("text_embed/norm", "text_embeddings.LayerNorm"),
        rule("vision_embed/cls", "transformer.cls_token", TOKEN),
        rule("vision_embed/patch/kernel", "transformer.patch_embed.proj.weight", patches(config.patch_size)),
        rule("vision_embed/patch/bias", "transformer.patch_embed.proj.bias"),
        rule("encoder/relative_positions", "relative_position_bias_table", layer_columns(config.depth, heads)),
        *norm("encoder/norm", "transformer.norm"),
    ]
    for block in range(config.depth):
        ours, theirs = f"encoder/block_{block}", f"transformer.blocks.{block}"
        rules += beit_attention(ours, theirs, heads)
        if config.layer_scale:
            rules += [rule(f"{ours}/attention_scale", f"{theirs}.gamma_1"), rule(f"{ours}/expert_scale", f"{theirs}.gamma_2")]
        for expert in experts_of(config, block):
            rules += beit_expert(f"{ours}/{expert}", theirs, f"_{EXPERTS[expert]}")
    heads_of_ours = [f"{head}/{part}" for head in ("vision_head", "language_head") for part in ("kernel", "bias")]
    constant = {  # Of BERT's embeddings: switched off in VLMo, or nothing to add.
        "text_embeddings.position_embeddings.weight": np.zeros((config.text_positions, width), np.float32),
        INNER_TYPES: np.zeros((2, width), np.float32),
        "text_embeddings.position_ids": np.arange(config.text_positions, dtype=np.int64)[None],
    }
    ignored = {name: "a head that pretraining here does not have" for name in names if name.startswith(OTHER_HEADS)}
    ignored |= {name: "computed, not learned" for name in INDICES}
    return Table(rules, dict.fromkeys(["vision_embed/mask_token", *heads_of_ours], NO_PLACE), constant, ignored)


def write(run: Run, folder: pathlib.Path) -> None:
    """``vlmo.safetensors``, the state dict under VLMo's names.

    Raises:
      UsageError: the model has absolute positions, which VLMo does not add.
    """
    refuse_beit3(run.model, "vlmo")
    if run.model.norm_eps != LAYER_NORM_EPS:
        raise UsageError(f"--to=vlmo: model.norm_eps={run.model.norm_eps:g} has no place in VLMo, whose norms add {LAYER_NORM_EPS:g}")
    if run.model.positions is not Positions.RELATIVE:
        raise UsageError("--to=vlmo: model.positions=absolute has no place in VLMo, which knows relative positions alone")
    write_safetensors(folder / WEIGHTS_FILE, exported(table(run.model, {}), run.params), {"format": "pt"})


def config_of(theirs: Mapping[str, Shape], unsaid: ModelConfig) -> ModelConfig:
    """The model that a file's shapes speak of; image size and codes, of which they do not, are as in ``unsaid``.

    Raises:
      UsageError: the file has not VLMo's names, or its bias table is not for this image size.
    """
    blocks = [name for name in theirs if name.startswith("transformer.blocks.") and name.endswith(".norm1.weight")]
    needed = ["transformer.patch_embed.proj.weight", WORDS, "relative_position_bias_table", "transformer.blocks.0.mlp_imag.fc1.weight"]
    missing = [name for name in needed if name not in theirs]
    if missing:
        raise UsageError(f"no VLMo checkpoint: {', '.join(missing)} missing")
    (width, _, patch_size, _), (rows, columns) = theirs[needed[0]], theirs[needed[2]]
    grid = unsaid.image_size // patch_size
    texts = rows - (2 * grid - 1) ** 2 - 3 - 2
    if texts < 6 or texts % 2:
        raise UsageError(f"relative_position_bias_table has {rows} rows, which does not fit --image_size={unsaid.image_size}")
    return ModelConfig(
        image_size=unsaid.image_size,
        patch_size=patch_size,
        width=width,
        depth=len(blocks),
        heads=columns // len(blocks),
        ffn_width=theirs[needed[3]][0],
        fused_layers=sum(name.endswith("mlp_vl.fc1.weight") for name in theirs),
        text_positions=texts // 2,
        positions=Positions.RELATIVE,
        layer_scale=0.1 if "transformer.blocks.0.gamma_1" in theirs else 0.0,
        vocabulary=theirs[WORDS][0],
        codes=unsaid.codes,
    )


def read(theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]) -> tuple[Table, Tensors]:
    """The table for a file, and its tensors with BERT's inner type, always row 0, folded into the words."""
    fold = {WORDS: lambda tensors: tensors[WORDS] + tensors[INNER_TYPES][0]} if INNER_TYPES in theirs.shapes else {}
    return table(config, theirs.shapes), Changed(theirs, fold)


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """The written names through an independent float64 statement of VLMo's network (``convert.reference``) against JAX."""
    tensors = open_tensors(folder / WEIGHTS_FILE)
    weights = {name.removeprefix("transformer."): tensors[name].astype(np.float64) for name in tensors.shapes}
    found = verify.Differences("VLMo's network in float64 NumPy")
    config, params = run.model, verify.parameters(run.params)
    net = Net(
        depth=config.depth, heads=config.heads, grid=config.grid, patch=config.patch_size, fused=config.fused_layers,
        text_positions=config.text_positions, relative=True,
    )  # fmt: skip
    for name, batch in verify.batches(config).items():
        if name == "image_masked":
            continue  # VLMo has no mask token.
        inputs = {key: value for key, value in batch.items() if key in ("image", "text")}
        wanted = verify.ours(config, params, inputs)
        texts = {"ids": inputs["text"], "valid": inputs["text"] != Special.PAD} if "text" in inputs else {}
        images = {"image": inputs["image"] / 127.5 - 1, "masked": None} if "image" in inputs else {}
        states = reference.states(weights, net, **images, **texts)
        patches = config.patches + 1 if images else 0
        parts = {"image_cls": states[:, 0], "image": states[:, 1:patches]} if images else {}
        parts |= {"text_cls": states[:, patches], "text": states[:, patches + 1 :]} if texts else {}
        found.add_output(name, parts, wanted, inputs)
    return found
