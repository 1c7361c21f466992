"""VLMo's names: what its published checkpoints hold, for models with relative positions."""

import pathlib
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.layouts import TOKEN, layer_columns, patches, stacked, vocabulary_rows
from vlbeit_jax.convert.opening import open_tensors
from vlbeit_jax.convert.reference import Net
from vlbeit_jax.convert.rules import Changed, Shape, Table, TensorFile, Tensors, exported, rule
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import beit_attention, beit_expert, experts_of, norm, refuse_beit3
from vlbeit_jax.convert.unsaid import Unsaid, grid_of, required, root, whole_heads
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import LAYER_NORM_EPS
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.types import Positions

EXPERTS = {"vision": "imag", "language": "text", "vision_language": "vl"}
NO_PLACE = "VLMo has no masked image modelling, and another head for texts"
WORDS, INNER_TYPES = (
    "text_embeddings.word_embeddings.weight",
    "text_embeddings.token_type_embeddings.weight",
)
PLACES, BIASES = "text_embeddings.position_embeddings.weight", "relative_position_bias_table"
PUBLISHED_TEXTS = (
    196  # That VLMo's own bias tables are for, whatever the texts that a model then takes.
)
SHORTEST = 3
GRID = "grid"  # In the notes of our files.
WEIGHTS_FILE = "vlmo.safetensors"
OTHER_HEADS = (
    "pooler.",
    "mlm_score.",
    "itm_score.",
    "itc_",
    "vqa_classifier.",
    "nlvr2_classifier.",
    "logit_",
)
INDICES = (
    "relative_position_index",
    "text_relative_position_index",
    "text_imag_relative_position_index",
)


def table(config: ModelConfig, names: Mapping[str, Shape]) -> Table:
    """All but the mask token and the heads; ``names`` are those of a file that is read (none: to be written)."""
    heads, width = config.heads, config.width
    rules = [
        rule("text_embed/type vision_embed/type", "token_type_embeddings.weight", stacked(2)),
        rule(
            "text_embed/words",
            WORDS,
            vocabulary_rows(config.vocabulary, padded_vocabulary(config.vocabulary)),
        ),
        *norm("text_embed/norm", "text_embeddings.LayerNorm"),
        rule("vision_embed/cls", "transformer.cls_token", TOKEN),
        rule(
            "vision_embed/patch/kernel",
            "transformer.patch_embed.proj.weight",
            patches(config.patch_size),
        ),
        rule("vision_embed/patch/bias", "transformer.patch_embed.proj.bias"),
        rule("encoder/relative_positions", BIASES, layer_columns(config.depth, heads)),
        *norm("encoder/norm", "transformer.norm"),
    ]
    for block in range(config.depth):
        ours, theirs = f"encoder/block_{block}", f"transformer.blocks.{block}"
        rules += beit_attention(ours, theirs, heads)
        if config.layer_scale:
            rules += [
                rule(f"{ours}/attention_scale", f"{theirs}.gamma_1"),
                rule(f"{ours}/expert_scale", f"{theirs}.gamma_2"),
            ]
        for expert in experts_of(config, block):
            rules += beit_expert(f"{ours}/{expert}", theirs, f"_{EXPERTS[expert]}")
    heads_of_ours = [
        f"{head}/{part}" for head in ("vision_head", "language_head") for part in ("kernel", "bias")
    ]
    constant = {  # Of BERT's embeddings: switched off in VLMo, or nothing to add.
        PLACES: np.zeros((config.text_positions, width), np.float32),
        INNER_TYPES: np.zeros((2, width), np.float32),
        "text_embeddings.position_ids": np.arange(config.text_positions, dtype=np.int64)[None],
    }
    ignored = {
        name: "a head that pretraining here does not have"
        for name in names
        if name.startswith(OTHER_HEADS)
    }
    ignored |= {name: "computed, not learned" for name in INDICES}
    return Table(
        rules,
        dict.fromkeys(["vision_embed/mask_token", *heads_of_ours], NO_PLACE),
        constant,
        ignored,
    )


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model has absolute positions or another epsilon, which VLMo has not."""
    refuse_beit3(run.model, "vlmo")
    if run.model.norm_eps != LAYER_NORM_EPS:
        raise UsageError(
            f"--to=vlmo: model.norm_eps={run.model.norm_eps:g} has no place in VLMo, whose norms add {LAYER_NORM_EPS:g}"
        )
    if run.model.positions is not Positions.RELATIVE:
        raise UsageError(
            "--to=vlmo: model.positions=absolute has no place in VLMo, which knows relative positions alone"
        )


def write(run: Run, folder: pathlib.Path) -> None:
    """``vlmo.safetensors``, the state dict under VLMo's names."""
    notes = {"format": "pt", GRID: str(run.model.grid)}
    write_safetensors(folder / WEIGHTS_FILE, exported(table(run.model, {}), run.params), notes)


def config_of(file: TensorFile, unsaid: Unsaid) -> ModelConfig:
    """The model that a file's shapes speak of; codes, of which they do not, are as in ``unsaid``.

    Raises:
      UsageError: the file has not VLMo's names, or its bias table is not for this image size.
    """
    theirs, first = file.shapes, "transformer.blocks.0"
    (width, _, patch_size, _), (vocabulary, _), (_, columns), (ffn_width, _), *_ = required(
        "VLMo checkpoint",
        theirs,
        {
            "transformer.patch_embed.proj.weight": 4,
            WORDS: 2,
            BIASES: 2,
            f"{first}.mlp_imag.fc1.weight": 2,
            f"{first}.norm1.weight": 1,
        },
    )
    depth = sum(
        name.startswith("transformer.blocks.") and name.endswith(".norm1.weight") for name in theirs
    )
    if columns % depth:
        raise UsageError(
            f"no VLMo checkpoint: {BIASES} has {columns} columns, which {depth} blocks do not share evenly"
        )
    grid, text_positions = _sizes(file, patch_size, unsaid)
    return unsaid.model(
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=whole_heads(width, columns // depth),
        ffn_width=ffn_width,
        fused_layers=sum(name.endswith("mlp_vl.fc1.weight") for name in theirs),
        text_positions=text_positions,
        positions=Positions.RELATIVE,
        layer_scale=0.1 if f"{first}.gamma_1" in theirs else 0.0,
        vocabulary=vocabulary,
    )


def _sizes(file: TensorFile, patch_size: int, unsaid: Unsaid) -> tuple[int, int]:
    """Patches along a side, and the longest text: images and texts share the rows of one bias table.

    Any smaller image would leave room for longer texts, so that one of the two has to be known.
    """
    theirs, rows = file.shapes, file.shapes[BIASES][0]
    known = int(file.metadata.get(GRID, 0)) or (
        root(theirs[INDICES[0]][0] - 1) if INDICES[0] in theirs else None
    )
    if known:
        grids = [unsaid.agreed("image_size", known * patch_size) // patch_size]
    else:
        grids = (
            range(1, rows)
            if unsaid.image_size is None
            else [grid_of(unsaid.image_size, patch_size)]
        )
    found = {grid: (rows - table_rows(grid, 0)) // 2 for grid in grids}
    longest = (
        [unsaid.text_positions]
        if unsaid.text_positions
        else [PUBLISHED_TEXTS, *theirs.get(PLACES, ())[:1]]
    )
    if unsaid.text_positions or not known:
        found = {grid: texts for grid, texts in found.items() if texts in longest}
    found = {
        grid: texts
        for grid, texts in found.items()
        if table_rows(grid, texts) == rows and texts >= SHORTEST
    }
    if len(found) != 1:
        images = (
            " or ".join(
                str(grid * patch_size) for grid in found or ([] if len(grids) > 1 else grids)
            )
            or "any size"
        )
        raise UsageError(
            f"{BIASES} has {rows} rows, which {'fit' if found else 'do not fit'} images of {images} with texts of "
            f"{' or '.join(map(str, longest))} word pieces; give --image_size and --text_positions as the file was trained with"
        )
    return next(iter(found.items()))


def read(theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]) -> tuple[Table, Tensors]:
    """The table for a file, and its tensors with BERT's inner type, always row 0, folded into the words."""
    fold = (
        {WORDS: lambda tensors: tensors[WORDS] + tensors[INNER_TYPES][0]}
        if INNER_TYPES in theirs.shapes
        else {}
    )
    return table(config, theirs.shapes), Changed(theirs, fold)


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """The written names through an independent float64 statement of VLMo's network (``convert.reference``) against JAX."""
    tensors = open_tensors(folder / WEIGHTS_FILE)
    weights = {
        name.removeprefix("transformer."): tensors[name].astype(np.float64)
        for name in tensors.shapes
    }
    found = verify.Differences("VLMo's network in float64 NumPy", run.model.pad)
    config, params = run.model, verify.parameters(run.params)
    net = Net(
        depth=config.depth,
        heads=config.heads,
        grid=config.grid,
        patch=config.patch_size,
        fused=config.fused_layers,
        text_positions=config.text_positions,
        relative=True,
    )
    for name, batch in verify.batches(config).items():
        if name == "image_masked":
            continue  # VLMo has no mask token.
        inputs = {key: value for key, value in batch.items() if key in ("image", "text")}
        wanted = verify.ours(config, params, inputs)
        texts = (
            {"ids": inputs["text"], "valid": inputs["text"] != config.pad}
            if "text" in inputs
            else {}
        )
        images = {"image": inputs["image"] / 127.5 - 1, "masked": None} if "image" in inputs else {}
        states = reference.states(weights, net, **images, **texts)
        patches = config.patches + 1 if images else 0
        parts = {"image_cls": states[:, 0], "image": states[:, 1:patches]} if images else {}
        parts |= {"text_cls": states[:, patches], "text": states[:, patches + 1 :]} if texts else {}
        found.add_output(name, parts, wanted, inputs)
    return found
