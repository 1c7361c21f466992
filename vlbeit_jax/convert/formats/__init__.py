"""Formats: one file each. ``EXPORTS`` are written from a run, ``IMPORTS`` are read from a file.

A new format is a new file here and one entry in a table.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert import importing
from vlbeit_jax.convert.formats import (
    beit,
    beit3,
    beit3_check,
    dalle,
    hf_beit,
    torch_module,
    vit,
    vlmo,
    vqkd,
)
from vlbeit_jax.convert.rules import Report, Table, TensorFile
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.unsaid import Unsaid
from vlbeit_jax.convert.verify import Differences
from vlbeit_jax.models.teacher import ViTConfig
from vlbeit_jax.tasks.teachers import abstract_params, write_teacher
from vlbeit_jax.tasks.visual_tokens import dalle_params, write_dalle


@dataclasses.dataclass(frozen=True)
class Export:
    """A format that runs are written in.

    Attributes:
      exact: where outputs are equal, and where not.
      needs: of the run, and to verify.
      drops: what has no place there.
      peers: packages that the check runs the other side with.
      require: raises a ``UsageError`` for a run that the format cannot say; None: it can say all.
      write: leaves the files of a run that it can say in an existing folder.
      check: compares the written folder with JAX on random inputs.
      flags: of the command, that it looks at beside those that all do.
    """

    exact: str
    needs: str
    drops: str
    peers: tuple[str, ...]
    require: Callable[[Run], None] | None
    write: Callable[[Run, pathlib.Path], None]
    check: Callable[[Run, pathlib.Path], Differences]
    flags: tuple[str, ...] = ("verify",)


EXPORTS = {
    "torch": Export(
        exact="all of it: images, texts, pairs, heads, visual tokenizer (VQ-KD or DALL-E's encoder), BEiT-3's form",
        needs="torch and safetensors to load it, nothing else",
        drops="nothing",
        peers=("torch",),
        require=None,
        write=torch_module.write,
        check=torch_module.check,
        flags=("verify", "data", "draws"),
    ),
    "hf-beit": Export(
        exact="images: states and visual-token logits; both position schemes",
        needs="transformers (4.57 or 5) to verify it",
        drops="texts, pairs, visual tokenizer; modality types are folded into positions or embeddings",
        peers=("torch", "transformers"),
        require=hf_beit.require,
        write=hf_beit.write,
        check=hf_beit.check,
    ),
    "vlmo": Export(
        exact="states of images, texts and pairs, for model.positions=relative",
        needs="relative positions",
        drops="mask token and both heads, of which VLMo has none or others",
        peers=(),
        require=vlmo.require,
        write=vlmo.write,
        check=vlmo.check,
    ),
    "beit3": Export(
        exact="images and texts in one state dict, pairs in the other; all in one for a decoupled model",
        needs="absolute positions; torchscale to verify it",
        drops="nothing: types and LayerScale are folded",
        peers=("torch", "torchscale"),
        require=beit3.require,
        write=beit3.write,
        check=beit3_check.check,
    ),
}


@dataclasses.dataclass(frozen=True)
class Import:
    """A format that is read from a file.

    Attributes:
      exact: what computes the same here as there.
      gives: what the new folder is good for.
      drops: what the file may hold that has no place here, and what starts afresh.
      read: (tensors, their file, what shapes do not say, folder to make) to a report.
      flags: of the command, that say what the file may not.
    """

    exact: str
    gives: str
    drops: str
    read: Callable[[TensorFile, pathlib.Path, Unsaid, pathlib.Path], Report]
    flags: tuple[str, ...]


def _model(
    config_of: Callable[[TensorFile, Unsaid], ModelConfig], table_of: importing.Read
) -> Callable[[TensorFile, pathlib.Path, Unsaid, pathlib.Path], Report]:
    def read(tensors: TensorFile, file: pathlib.Path, unsaid: Unsaid, out: pathlib.Path) -> Report:
        return importing.import_model(file, tensors, table_of, config_of(tensors, unsaid), out)

    return read


def _vqkd(tensors: TensorFile, file: pathlib.Path, unsaid: Unsaid, out: pathlib.Path) -> Report:
    config = vqkd.config_of(tensors.shapes, unsaid)
    return importing.import_visual_tokenizer(
        file, tensors, vqkd.table(config, tensors.shapes), config, out
    )


def _dalle(tensors: TensorFile, file: pathlib.Path, unsaid: Unsaid, out: pathlib.Path) -> Report:
    config = dalle.config_of(tensors.shapes, unsaid)
    describe = functools.partial(write_dalle, config=config)
    return importing.import_network(
        file, tensors, dalle.table(config), dalle_params(config), describe, out
    )


def _clip(tensors: TensorFile, file: pathlib.Path, unsaid: Unsaid, out: pathlib.Path) -> Report:
    config = vit.clip_config(tensors.shapes, unsaid)
    return _teacher(tensors, file, vit.clip_table(config, tensors.shapes), config, out)


def _dino(tensors: TensorFile, file: pathlib.Path, unsaid: Unsaid, out: pathlib.Path) -> Report:
    config = vit.dino_config(tensors.shapes, unsaid)
    return _teacher(tensors, file, vit.dino_table(config, tensors.shapes), config, out)


def _teacher(
    tensors: TensorFile, file: pathlib.Path, table: Table, config: ViTConfig, out: pathlib.Path
) -> Report:
    return importing.import_network(
        file,
        tensors,
        table,
        abstract_params(config),
        functools.partial(write_teacher, vit=config),
        out,
    )


START, TEACHER = (
    "a start for pretraining: run.start_from",
    "a teacher for VQ-KD: visual_tokenizer.teacher_weights",
)
TOKENIZER = "a visual tokenizer: data.visual_tokenizer"
OF_BEIT = ("image_size", "codes", "vocabulary", "text_positions")
IMPORTS = {
    "vlmo": Import(
        "states of images, texts and pairs",
        START,
        "its heads; mask token and our heads start afresh",
        _model(vlmo.config_of, vlmo.read),
        ("image_size", "text_positions", "codes"),
    ),
    "beit": Import(
        "images: states, visual-token logits",
        START,
        "a classifier; all of texts starts afresh",
        _model(beit.config_of, beit.read),
        OF_BEIT,
    ),
    "beit2": Import(
        "images: states, visual-token logits; the normalisation of pixels is folded",
        START,
        "the CLS layers; all of texts starts afresh",
        _model(beit.config_of, beit.read_v2),
        OF_BEIT,
    ),
    "beit3": Import(
        "all of it: images, texts, pairs, heads",
        "a model to use and to export; a start for pretraining if its padding is word piece 0",
        "heads of fine-tuning",
        _model(beit3.config_of, beit3.read),
        ("heads", "codes"),
    ),
    "vqkd": Import(
        "visual tokens, predictions of the teacher",
        TOKENIZER,
        "training statistics",
        _vqkd,
        ("heads",),
    ),
    "dalle": Import(
        "visual tokens", TOKENIZER, "nothing: the decoder is another file", _dalle, ("image_size",)
    ),
    "clip": Import("features of patches", TEACHER, "the text side", _clip, ("heads",)),
    "dino": Import("features of patches", TEACHER, "the projection head", _dino, ("heads",)),
}
