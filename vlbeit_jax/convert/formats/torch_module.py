"""The whole model and its visual tokenizer for PyTorch, with the one file that defines them (``convert/standalone``)."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np

import vlbeit_jax
from vlbeit_jax.config import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config_parse import to_dict
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.torch_tables import dalle_table, model_table, vqkd_table
from vlbeit_jax.convert.rules import Rule, Table, exported
from vlbeit_jax.convert.source import Run
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.embed import TEXT_NORM_EPS
from vlbeit_jax.models.layers import LAYER_NORM_EPS
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.types import Special

STANDALONE = pathlib.Path(__file__).parent.parent / "standalone"
WEIGHTS_FILE = "model.safetensors"


def write(run: Run, folder: pathlib.Path) -> None:
    """Weights, configuration, text tokenizer, and the files of ``convert/standalone``."""
    tensors = [*exported(_prefixed(model_table(run.model), "model."), run.params)]
    if run.visual is not None:
        config = run.visual.config
        table = dalle_table(config) if isinstance(config, DalleConfig) else vqkd_table(config)
        tensors += exported(_prefixed(table, "visual_tokenizer."), run.visual.params)
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(run), indent=1) + "\n")
    for path in sorted(STANDALONE.glob("*.py")):
        shutil.copy(path, folder)
    if run.text_tokenizer is not None:
        shutil.copytree(run.text_tokenizer, folder / "text_tokenizer")


def _prefixed(table: Table, prefix: str) -> Table:
    return Table(
        [
            Rule(ours, tuple(prefix + name for name in theirs), layout)
            for ours, theirs, layout in table.rules
        ]
    )


def _config(run: Run) -> dict[str, Any]:
    return {
        "format": 1,
        "written_by": f"vlbeit_jax {vlbeit_jax.__version__}",
        "step": run.step,
        "model": model_config(run.model),
        "visual_tokenizer": None if run.visual is None else visual_config(run.visual.config),
        # An imported model knows the word pieces of the program that it was trained with, of which nothing is known here.
        "specials": None
        if run.text_tokenizer is None
        else {special.name: int(special) for special in Special},
    }


def model_config(config: ModelConfig) -> dict[str, Any]:
    """What ``VLBEiT`` of ``vlbeit_torch.py`` is made from."""
    return to_dict(config) | {"layer_norm_eps": config.norm_eps, "text_norm_eps": TEXT_NORM_EPS}


def visual_config(config: VisualTokenizerConfig | DalleConfig) -> dict[str, Any]:
    """What a visual tokenizer of ``vlbeit_torch.py`` is made from."""
    if isinstance(config, DalleConfig):
        return {"kind": "dalle"} | dataclasses.asdict(config)
    width = make_tokenizer(config).target_width
    return (
        {"kind": "vqkd"}
        | to_dict(config)
        | {"target_width": width, "layer_norm_eps": LAYER_NORM_EPS}
    )


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """The module in the folder against JAX, on random images, texts and pairs; and what visual tokens are chosen by."""
    import torch

    module = verify.module_of(folder / "vlbeit_torch.py")
    model, visual_tokenizer = module.load(folder)
    found = verify.Differences(f"vlbeit_torch.py with PyTorch {torch.__version__}", run.model.pad)
    parameters = verify.parameters(run.params)
    for name, batch in verify.batches(run.model).items():
        with torch.inference_mode():
            inputs = {
                key: torch.from_numpy(value).long()
                for key, value in batch.items()
                if key != "image"
            }
            if "image" in batch:
                inputs["image"] = module.normalise(
                    torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
                )
            theirs = {
                key: value
                for key, value in vars(model(**inputs)).items()
                if isinstance(value, torch.Tensor)
            }
        found.add_output(
            name,
            {key: value.numpy() for key, value in theirs.items()},
            verify.ours(run.model, parameters, batch),
            batch,
        )
    if run.visual is not None:
        image = verify.images(run.visual.config.image_size)
        for name, wanted in verify.visual_tokens(run.visual, image).items():
            with torch.inference_mode():
                theirs = getattr(visual_tokenizer, name)(
                    module.normalise(torch.from_numpy(image).permute(0, 3, 1, 2))
                )
            # VQ-KD's features are unit vectors. Logits are of any size: theirs is what is compared in.
            unit = np.abs(wanted).max() if name == "logits" else np.float32(1)
            found.add(f"visual_tokenizer/{name}", theirs.numpy() / unit, wanted / unit)
    return found
