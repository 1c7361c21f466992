"""The image side as Hugging Face's BEiT: names that transformers 4 and 5 both read (they are written with version 4's)."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.layouts import ROWS, TOKEN, attention_out, head_bias, patches, split_qkv
from vlbeit_jax.convert.rules import Changed, Table, Tensors, exported, rule
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import linear, norm, refuse_beit3, relative_biases, sees_images
from vlbeit_jax.types import Positions

TYPE = "vision_embed/type"
RELATIVE = "attention.attention.relative_position_bias.relative_position_bias_table"
VARIANT = "backbone"


def table(
    config: ModelConfig, names: Iterable[str], prefix: str, final_norm: str, head: str | None
) -> Table:
    """The image side of a model.

    Args:
      config: of the model.
      names: all of its parameters.
      prefix: of everything below the heads.
      final_norm: where the last norm stands.
      head: where the prediction of visual tokens stands; None: it is left out.
    """
    heads, place = config.heads, f"{prefix}embeddings"
    rules = [
        rule("vision_embed/cls", f"{place}.cls_token", TOKEN),
        rule("vision_embed/mask_token", f"{place}.mask_token", TOKEN),
        rule(
            "vision_embed/patch/kernel",
            f"{place}.patch_embeddings.projection.weight",
            patches(config.patch_size),
        ),
        rule("vision_embed/patch/bias", f"{place}.patch_embeddings.projection.bias"),
    ]
    if config.positions is Positions.ABSOLUTE:
        rules.append(rule("vision_embed/positions", f"{place}.position_embeddings", ROWS))
    else:
        rules.append(
            relative_biases(
                config,
                tuple(f"{prefix}encoder.layer.{block}.{RELATIVE}" for block in range(config.depth)),
            )
        )
    for block in range(config.depth):
        ours, theirs = f"encoder/block_{block}", f"{prefix}encoder.layer.{block}"
        attention = f"{theirs}.attention.attention"
        keys = " ".join(f"{attention}.{name}.weight" for name in ("query", "key", "value"))
        rules += norm(f"{ours}/attention_norm", f"{theirs}.layernorm_before") + [
            rule(f"{ours}/attention/qkv", keys, split_qkv(heads)),
            rule(f"{ours}/attention/query_bias", f"{attention}.query.bias", head_bias(heads)),
            rule(f"{ours}/attention/value_bias", f"{attention}.value.bias", head_bias(heads)),
            rule(
                f"{ours}/attention/out",
                f"{theirs}.attention.output.dense.weight",
                attention_out(heads),
            ),
            rule(f"{ours}/attention/out_bias", f"{theirs}.attention.output.dense.bias"),
        ]
        rules += norm(f"{ours}/vision/norm", f"{theirs}.layernorm_after")
        rules += linear(f"{ours}/vision/up", f"{theirs}.intermediate.dense") + linear(
            f"{ours}/vision/down", f"{theirs}.output.dense"
        )
        if config.layer_scale:
            rules += [
                rule(f"{ours}/attention_scale", f"{theirs}.lambda_1"),
                rule(f"{ours}/expert_scale", f"{theirs}.lambda_2"),
            ]
    rules += norm("encoder/norm", final_norm) + (linear("vision_head", head) if head else [])
    left_out = {name: "not part of the image side" for name in names if not sees_images(name)} | {
        TYPE: "folded into the embeddings"
    }
    return Table(
        rules,
        left_out
        | ({} if head else {f"vision_head/{part}": "no head here" for part in ("kernel", "bias")}),
    )


def folded(config: ModelConfig, params: Tensors) -> Tensors:
    """The same network without a modality type: it is added where every image token gets it."""
    absolute = config.positions is Positions.ABSOLUTE
    places = (
        ["vision_embed/positions"]
        if absolute
        else [f"vision_embed/{name}" for name in ("cls", "mask_token", "patch/bias")]
    )
    return Changed(
        params,
        {place: lambda leaves, place=place: leaves[place] + leaves[TYPE] for place in places},
    )


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model has what BEiT has not."""
    refuse_beit3(run.model, "hf-beit")


def write(run: Run, folder: pathlib.Path) -> None:
    """``BeitForMaskedImageModeling`` as ``model.safetensors``, and ``BeitModel`` as the variant "backbone"."""
    params, names = folded(run.model, run.params), run.params.shapes
    whole = table(run.model, names, "beit.", "layernorm", "lm_head")
    backbone = table(run.model, names, "", "pooler.layernorm", None)
    write_safetensors(folder / "model.safetensors", exported(whole, params), {"format": "pt"})
    write_safetensors(
        folder / f"model.{VARIANT}.safetensors", exported(backbone, params), {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(_config(run.model), indent=1) + "\n")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(_preprocessor(run.model), indent=1) + "\n"
    )


def _config(config: ModelConfig) -> dict[str, Any]:
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
        "use_mean_pooling": True,  # Otherwise BeitForMaskedImageModeling normalises twice.
    }


def _preprocessor(config: ModelConfig) -> dict[str, Any]:
    size = {"height": config.image_size, "width": config.image_size}
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


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Both classes of transformers against JAX; a missing or unexpected name is an error."""
    import torch
    import transformers

    def opened(kind: str, **options: str) -> Any:
        model, names = getattr(transformers, kind).from_pretrained(
            folder, output_loading_info=True, **options
        )
        wrong = {what: sorted(found) for what, found in names.items() if found}
        if wrong:
            raise ValueError(
                f"{kind} of transformers {transformers.__version__} does not take all names of {folder}: {wrong}"
            )
        return model.eval()

    predicting, backbone = (
        opened("BeitForMaskedImageModeling"),
        opened("BeitModel", variant=VARIANT),
    )
    found, params = (
        verify.Differences(f"transformers {transformers.__version__}"),
        verify.parameters(run.params),
    )
    for name in ("image", "image_masked"):
        batch = verify.batches(run.model)[name]
        pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        wanted = verify.ours(run.model, params, batch)
        hidden, masked = (
            np.zeros((len(pixels), run.model.patches), bool),
            batch.get("masked_patches"),
        )
        if masked is not None:
            np.put_along_axis(hidden, masked, True, axis=1)
        with torch.no_grad():
            states = predicting.beit(
                pixels, bool_masked_pos=torch.from_numpy(hidden)
            ).last_hidden_state
            logits = predicting(pixels, bool_masked_pos=torch.from_numpy(hidden)).logits.numpy()
            pooled = backbone(pixels, bool_masked_pos=torch.from_numpy(hidden))
        normed = predicting.layernorm(states).detach().numpy()
        found.add(f"{name}/image_cls", normed[:, 0], wanted["image_cls"])
        found.add(f"{name}/image", normed[:, 1:], wanted["image"])
        found.add(
            f"{name}/backbone",
            backbone.pooler.layernorm(pooled.last_hidden_state)[:, 1:].detach().numpy(),
            wanted["image"],
        )
        if masked is not None:
            picked = np.take_along_axis(logits, masked[..., None], axis=1)
            found.add(f"{name}/image_logits", picked, wanted["image_logits"])
    return found
