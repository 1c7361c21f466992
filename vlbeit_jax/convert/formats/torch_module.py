"""The whole model and its visual tokenizer for PyTorch, with the one file that defines them (``convert/standalone``)."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import vlbeit_jax
from vlbeit_jax.config import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config_parse import to_dict
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.layouts import attention_out, fused_qkv, head_bias, patches, vocabulary_columns, vocabulary_rows
from vlbeit_jax.convert.rules import Rule, Table, Tensors, exported, rule
from vlbeit_jax.convert.source import CODEBOOK, Run
from vlbeit_jax.convert.tables import experts_of, linear, norm, refuse_beit3
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.embed import TEXT_NORM_EPS
from vlbeit_jax.models.layers import LAYER_NORM_EPS, padded_vocabulary
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.types import Modality, Positions, Special

STANDALONE = pathlib.Path(__file__).parent.parent / "standalone"
WEIGHTS_FILE = "model.safetensors"


def model_table(config: ModelConfig) -> Table:
    """Every parameter of the model; nothing is left out."""
    size, padded = config.vocabulary, padded_vocabulary(config.vocabulary)
    absolute = config.positions is Positions.ABSOLUTE
    rules = _vision_embed("vision_embed", config.patch_size, absolute)
    rules += [rule("vision_embed/mask_token", "vision_embed.mask_token"), rule("vision_embed/type", "vision_embed.modality")]
    rules += [
        rule("text_embed/words", "text_embed.words.weight", vocabulary_rows(size, padded)),
        rule("text_embed/type", "text_embed.modality"),
    ]
    rules += [rule("text_embed/positions", "text_embed.positions")] if absolute else norm("text_embed/norm", "text_embed.norm")
    rules += [] if absolute else [rule("encoder/relative_positions", "relative_positions")]
    for block in range(config.depth):
        rules += _block("encoder", block, config.heads, experts_of(config, block), config.layer_scale > 0)
    rules += norm("encoder/norm", "encoder.norm") + linear("vision_head", "vision_head")
    rules += [
        rule("language_head/kernel", "language_head.weight", vocabulary_columns(size, padded)),
        rule("language_head/bias", "language_head.bias", vocabulary_rows(size, padded)),
    ]
    return Table(rules)


def visual_table(config: VisualTokenizerConfig) -> Table:
    """Every parameter of the visual tokenizer, and its codebook."""
    rules = [rule(CODEBOOK, "codebook")]
    for part, side, depth in (("encoder", config.patch_size, config.encoder_depth), ("decoder", 1, config.decoder_depth)):
        rules += _vision_embed(f"{part}_embed", side, True) + norm(f"{part}/norm", f"{part}.norm")
        for block in range(depth):
            rules += _block(part, block, config.heads, [Modality.VISION], False)
    for name in ("to_code", "to_target"):
        rules += linear(f"{name}/inner", f"{name}.0") + linear(f"{name}/outer", f"{name}.2")
    return Table(rules)


def _vision_embed(name: str, side: int, absolute: bool) -> list[Rule]:
    rules = [rule(f"{name}/patch/kernel", f"{name}.patch.weight", patches(side)), rule(f"{name}/patch/bias", f"{name}.patch.bias")]
    return rules + [rule(f"{name}/{part}", f"{name}.{part}") for part in ("cls", "positions")[: 1 + absolute]]


def _block(part: str, block: int, heads: int, experts: Sequence[str], scaled: bool) -> list[Rule]:
    ours, theirs = f"{part}/block_{block}", f"{part}.blocks.{block}"
    rules = norm(f"{ours}/attention_norm", f"{theirs}.attention_norm") + [
        rule(f"{ours}/attention/qkv", f"{theirs}.attention.qkv.weight", fused_qkv(heads)),
        rule(f"{ours}/attention/query_bias", f"{theirs}.attention.query_bias", head_bias(heads)),
        rule(f"{ours}/attention/value_bias", f"{theirs}.attention.value_bias", head_bias(heads)),
        rule(f"{ours}/attention/out", f"{theirs}.attention.out.weight", attention_out(heads)),
        rule(f"{ours}/attention/out_bias", f"{theirs}.attention.out.bias"),
    ]
    rules += [rule(f"{ours}/{name}_scale", f"{theirs}.{name}_scale") for name in ("attention", "expert") if scaled]
    for expert in experts:
        place = f"{theirs}.experts.{expert}"
        rules += norm(f"{ours}/{expert}/norm", f"{place}.norm")
        rules += linear(f"{ours}/{expert}/up", f"{place}.up") + linear(f"{ours}/{expert}/down", f"{place}.down")
    return rules


def _prefixed(table: Table, prefix: str) -> Table:
    return Table([Rule(ours, tuple(prefix + name for name in theirs), layout) for ours, theirs, layout in table.rules])


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model or its visual tokenizer is one that these files do not define."""
    refuse_beit3(run.model, "torch")
    if isinstance(run.visual_config, DalleConfig):
        raise UsageError(
            f"--to=torch: the visual tokenizer of the run in {run.folder} is DALL-E's encoder, and vlbeit_torch.py defines VQ-KD alone; "
            "--to=hf-beit and --to=vlmo go without a visual tokenizer"
        )


def write(run: Run, folder: pathlib.Path) -> None:
    """Weights, configuration, text tokenizer, and the files of ``convert/standalone``."""
    tensors = [*exported(_prefixed(model_table(run.model), "model."), run.params)]
    if (visual := _visual(run)) is not None:
        tensors += exported(_prefixed(visual_table(visual[1]), "visual_tokenizer."), visual[0])
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(run), indent=1) + "\n")
    for path in sorted(STANDALONE.glob("*.py")):
        shutil.copy(path, folder)
    if run.text_tokenizer is not None:
        shutil.copytree(run.text_tokenizer, folder / "text_tokenizer")


def _visual(run: Run) -> tuple[Tensors, VisualTokenizerConfig] | None:
    return (run.visual, run.visual_config) if run.visual is not None and isinstance(run.visual_config, VisualTokenizerConfig) else None


def _config(run: Run) -> dict[str, Any]:
    visual = None
    if (found := _visual(run)) is not None:
        width = make_tokenizer(found[1]).target_width
        visual = to_dict(found[1]) | {"target_width": width, "layer_norm_eps": LAYER_NORM_EPS}
    model = to_dict(run.model) | {"layer_norm_eps": run.model.norm_eps, "text_norm_eps": TEXT_NORM_EPS}
    return {
        "format": 1,
        "written_by": f"vlbeit_jax {vlbeit_jax.__version__}",
        "step": run.step,
        "model": model,
        "visual_tokenizer": visual,
        "specials": {special.name: int(special) for special in Special},
    }


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """The module in the folder against JAX, on random images, texts and pairs; and the visual tokens."""
    import torch

    module = verify.module_of(folder / "vlbeit_torch.py")
    model, visual_tokenizer = module.load(folder)
    found = verify.Differences(f"vlbeit_torch.py with PyTorch {torch.__version__}")
    parameters = verify.parameters(run.params)
    for name, batch in verify.batches(run.model).items():
        with torch.inference_mode():
            inputs = {key: torch.from_numpy(value).long() for key, value in batch.items() if key != "image"}
            if "image" in batch:
                inputs["image"] = module.normalise(torch.from_numpy(batch["image"]).permute(0, 3, 1, 2))
            theirs = {key: value for key, value in vars(model(**inputs)).items() if isinstance(value, torch.Tensor)}
        found.add_output(name, {key: value.numpy() for key, value in theirs.items()}, verify.ours(run.model, parameters, batch), batch)
    if (visual := _visual(run)) is not None:
        image = verify.images(visual[1].image_size)
        with torch.inference_mode():
            features = visual_tokenizer.features(module.normalise(torch.from_numpy(image).permute(0, 3, 1, 2)))
        found.add("visual_tokenizer/features", features.numpy(), verify.visual_features(visual[1], visual[0], image))
    return found
