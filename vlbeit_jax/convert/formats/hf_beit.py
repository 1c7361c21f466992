"""The image side as Hugging Face's BEiT.

Names are those of transformers 4, which versions 4 and 5 both read.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.base import Export
from vlbeit_jax.convert.permutations import ROWS, TOKEN, patches
from vlbeit_jax.convert.rules import Arrays, Rule, Table, export, rule
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import (
    AttentionNames,
    attention,
    expert,
    layer_scale,
    linear,
    norm,
    refuse_beit3,
    relative_biases,
    sees_images,
)
from vlbeit_jax.types import Positions

TYPE, MASK_TOKEN = "vision_embed/type", "vision_embed/mask_token"
RELATIVE = "attention.attention.relative_position_bias.relative_position_bias_table"
VARIANT = "backbone"
NOTES = {"format": "pt"}


def table(
    config: ModelConfig, params: Iterable[str], prefix: str, final_norm: str, head: str | None
) -> Table:
    """Returns the rules for the image side of a model.

    Args:
      config: of the model.
      params: names of all its parameters.
      prefix: of every name below the heads.
      final_norm: name of the last norm.
      head: name of the visual-token head; None: it is left out.
    """
    rules = trunk(config, prefix) + norm("encoder/norm", final_norm)
    left_out = {name: "not part of the image side" for name in params if not sees_images(name)}
    left_out[TYPE] = "folded into the embeddings"
    if head:
        rules += linear("vision_head", head)
    else:
        left_out |= {"vision_head/kernel": "no head here", "vision_head/bias": "no head here"}
    return Table(rules, left_out)


def trunk(config: ModelConfig, prefix: str) -> list[Rule]:
    """Rules of embeddings and blocks; every name begins with ``prefix``."""
    embed = f"{prefix}embeddings"
    projection = f"{embed}.patch_embeddings.projection"
    rules = [
        rule("vision_embed/cls", f"{embed}.cls_token", TOKEN),
        rule(MASK_TOKEN, f"{embed}.mask_token", TOKEN),
        rule("vision_embed/patch/kernel", f"{projection}.weight", patches(config.patch_size)),
        rule("vision_embed/patch/bias", f"{projection}.bias"),
    ]
    blocks = [f"{prefix}encoder.layer.{block}" for block in range(config.depth)]
    if config.positions is Positions.ABSOLUTE:
        rules.append(rule("vision_embed/positions", f"{embed}.position_embeddings", ROWS))
    else:
        rules.append(relative_biases(config, tuple(f"{torch}.{RELATIVE}" for torch in blocks)))
    for block, torch in enumerate(blocks):
        jax, attn = f"encoder/block_{block}", f"{torch}.attention.attention"
        names = AttentionNames(
            norm=f"{torch}.layernorm_before",
            qkv=f"{attn}.query.weight {attn}.key.weight {attn}.value.weight",
            bias=f"{attn}.query.bias {attn}.value.bias",
            out=f"{torch}.attention.output.dense",
        )
        rules += attention(jax, names, config.heads)
        rules += expert(
            f"{jax}/vision",
            f"{torch}.layernorm_after",
            f"{torch}.intermediate.dense",
            f"{torch}.output.dense",
        )
        rules += layer_scale(config, jax, f"{torch}.lambda_1", f"{torch}.lambda_2")
    return rules


def fold_type(config: ModelConfig, params: Arrays) -> dict[str, np.ndarray]:
    """Returns the same network without a modality type.

    The type is added to positions, which every image token gets. Without absolute positions it is
    added to CLS, the mask token and the bias of patches.
    """
    if config.positions is Positions.ABSOLUTE:
        names = ["vision_embed/positions"]
    else:
        names = [f"vision_embed/{name}" for name in ("cls", "mask_token", "patch/bias")]
    return {**params, **{name: params[name] + params[TYPE] for name in names}}


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model has parts that BEiT does not support."""
    refuse_beit3(run.model, "hf-beit")


def write(run: Run, folder: pathlib.Path) -> None:
    """Writes ``BeitForMaskedImageModeling``, and ``BeitModel`` as the variant "backbone"."""
    params, config = fold_type(run.model, run.params), run.model
    whole = table(config, params, "beit.", "layernorm", "lm_head")
    backbone = table(config, params, "", "pooler.layernorm", None)
    write_safetensors(folder / "model.safetensors", export(whole, params), NOTES)
    write_safetensors(folder / f"model.{VARIANT}.safetensors", export(backbone, params), NOTES)
    (folder / "config.json").write_text(json.dumps(beit_config(config), indent=1) + "\n")
    preprocessor = json.dumps(squashing(config.image_size), indent=1)
    (folder / "preprocessor_config.json").write_text(preprocessor + "\n")


def beit_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the content of config.json."""
    relative = config.positions is Positions.RELATIVE
    return {
        "architectures": ["BeitForMaskedImageModeling"],
        "model_type": "beit",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": 3,
        "vocab_size": config.codes,
        "use_mask_token": True,
        "use_absolute_position_embeddings": not relative,
        "use_relative_position_bias": relative,
        "use_shared_relative_position_bias": False,
        "layer_scale_init_value": config.layer_scale,
        "drop_path_rate": config.drop_path,
        # Without mean pooling BeitForMaskedImageModeling normalises twice.
        "use_mean_pooling": True,
    }


def squashing(side: int) -> dict[str, Any]:
    """Returns the content of preprocessor_config.json: the whole image becomes a square."""
    size = {"height": side, "width": side}
    return {
        "image_processor_type": "BeitImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": 3,
        "do_center_crop": False,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_reduce_labels": False,
    }


def open_model(folder: pathlib.Path, kind: str, **options: str) -> Any:
    """Opens a class of transformers from an export.

    Raises:
      ValueError: the class reports a missing or unexpected name.
    """
    import transformers

    model, names = getattr(transformers, kind).from_pretrained(
        folder, output_loading_info=True, **options
    )
    wrong = {problem: sorted(listed) for problem, listed in names.items() if listed}
    if wrong:
        raise ValueError(
            f"{kind} of transformers {transformers.__version__} does not accept all names of "
            f"{folder}: {wrong}"
        )
    return model.eval()


def pixel_values(image: np.ndarray) -> Any:
    """Returns pixels Uint8[B, side, side, 3] as transformers takes them."""
    import torch

    return torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Compares both classes of transformers with JAX.

    Raises:
      ValueError: a class reports a missing or unexpected name.
    """
    import torch
    import transformers

    predicting = open_model(folder, "BeitForMaskedImageModeling")
    backbone = open_model(folder, "BeitModel", variant=VARIANT)
    batches = verify.random_batches(run.model)
    batches = {name: batches[name] for name in ("image", "image_masked")}

    def inputs_of(batch: verify.Batch) -> dict[str, Any]:
        hidden = verify.hidden_patches(batch, run.model.patches)
        pixels = pixel_values(batch["image"])
        return {"pixel_values": pixels, "bool_masked_pos": torch.from_numpy(hidden)}

    @torch.no_grad()
    def forward(name: str, batch: verify.Batch) -> dict[str, np.ndarray]:
        inputs = inputs_of(batch)
        # BEiT's last states are not normalised; the norm belongs to the head.
        states = predicting.layernorm(predicting.beit(**inputs).last_hidden_state)
        outputs = verify.split_states(states.numpy(), batch, run.model.patches)
        if "masked_patches" in batch:
            logits = predicting(**inputs).logits.numpy()
            positions = batch["masked_patches"][..., None]
            outputs["image_logits"] = np.take_along_axis(logits, positions, axis=1)
        return outputs

    differences = verify.compare(run, f"transformers {transformers.__version__}", forward, batches)
    for name, batch in batches.items():
        with torch.no_grad():
            states = backbone.pooler.layernorm(backbone(**inputs_of(batch)).last_hidden_state)
        differences.add(f"{name}/backbone", states.numpy()[:, 1:], forward(name, batch)["image"])
    return differences


EXPORT = Export(
    takes="pretraining runs",
    exact="images: states and visual-token logits; both position schemes",
    needs="transformers (4.57 or 5) to verify it",
    drops="texts, pairs, visual tokenizer; modality types are folded into positions or embeddings",
    peers=("torch", "transformers"),
    require=require,
    write=write,
    check=check,
)
