"""Prints digests of everything that conversion writes, so that two commits can be compared.

    # In a checkout of the old commit:
    python -m tests.convert.digests FOLDER >old.json
    # In a checkout of the new commit:
    python -m tests.convert.digests FOLDER --against=old.json >new.json

The first call makes random runs and files of other programs in FOLDER; later calls read the same
ones. Every run is exported in every format that takes it, and every file is imported and then
exported again. Tensor files and JSON files are digested byte by byte. Imported checkpoints are
digested array by array, because Orbax does not promise their bytes, and so are the examples of
--data, whose order in the file used to change from process to process. With --against, the process
exits with code 1 and lists what differs.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys
import tempfile

import jax
import numpy as np
import orbax.checkpoint as ocp
import torch
from etils import epath
from safetensors.numpy import load_file
from safetensors.torch import save_file

from tests import tiny
from tests.convert import published_dalle, test_beit, test_beit3, test_teachers, test_vlmo
from tests.convert.conftest import write_random_run
from tests.convert.named import randomised
from tests.convert.random_runs import random_tree
from tests.convert.test_vqkd import CONFIG as VQKD
from tests.models.published_weights import vqkd_weights
from vlbeit_jax.convert import source
from vlbeit_jax.convert.examples import EXAMPLES_FILE, write_examples
from vlbeit_jax.convert.formats import EXPORTS, IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError

MODELS = {
    "absolute": {},
    "relative": {"positions": "relative"},
    "unscaled": {"layer_scale": 0.0},
    "bfloat16": {"matmul": "bfloat16", "positions": "relative"},
    "sub_norm": {"sub_norm": True},
    "beit3": {"decoupled": True, "sub_norm": True, "layer_scale": 0.0, "fused_layers": 0},
    "decoupled": {"decoupled": True, "layer_scale": 0.0, "fused_layers": 0, "pad": 1},
}
OPTIONS = {
    "vlmo": {"codes": 40},
    "beit": {"vocabulary": 300, "text_positions": 16},
    "beit-fine_tuned": {"vocabulary": 300, "text_positions": 16, "codes": 40},
    "beit2": {"vocabulary": 300, "text_positions": 16},
    "beit3": {},
    "beit3-plain": {"heads": 4},
    "vqkd": {},
    "dalle": {"image_size": 64},
    "clip": {"activation": "quick_gelu"},
    "dino": {},
}


def make_inputs(folder: pathlib.Path) -> None:
    """Writes FOLDER/runs/NAME and FOLDER/files/NAME.TYPE.safetensors (and .pth)."""
    folder.mkdir(parents=True)
    world = tiny.make_world(folder / "world")
    config = tiny.pretrain_config(world)
    for name, change in MODELS.items():
        run = tiny.changed(config, task={"model": change})
        write_random_run(folder / "runs" / name, run, world)
    dalle = write_random_run(folder / "runs" / "dalle", config, world)
    shutil.rmtree(dalle / "visual_tokenizer")
    encoder = published_dalle.read(folder / "encoder", published_dalle.SMALL)
    shutil.copytree(encoder, dalle / "visual_tokenizer")
    files = folder / "files"
    files.mkdir()
    for name, arrays in foreign_files().items():
        tensors = {key: torch.as_tensor(value).contiguous() for key, value in arrays.items()}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            stored = {key: value.to(dtype) for key, value in tensors.items()}
            save_file(stored, files / f"{name}.{str(dtype).removeprefix('torch.')}.safetensors")
        torch.save({"model": tensors}, files / f"{name}.float32.pth")


def foreign_files() -> dict[str, dict]:
    """Random tensors under the published names, as the tests of each format state them."""
    arrays = random_tree(source.visual_shapes(VQKD))
    codebook = arrays.pop("codebook")
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    vqkd = vqkd_weights(source.as_tree(arrays), codebook, VQKD)
    for name in vqkd:
        vqkd[name] = np.asarray(vqkd[name], np.float32)
        if name.endswith("cls_token"):
            vqkd[name] = vqkd[name].reshape(1, 1, -1)
        elif name.endswith("pos_embed"):
            vqkd[name] = vqkd[name][None]
    return {
        "vlmo": randomised(test_vlmo.published_shapes()),
        "beit": test_beit.published(False),
        "beit-fine_tuned": test_beit.published(True),
        "beit2": test_beit.published(False),
        "beit3": randomised(test_beit3.published_shapes(True)),
        "beit3-plain": randomised(test_beit3.published_shapes(False)),
        "vqkd": vqkd,
        "dalle": published_dalle.published(published_dalle.DEEP),
        "clip": test_teachers.clip_names(test_teachers.clip_network()),
        "dino": test_teachers.dino_names(test_teachers.dino_network()),
    }


def sha256(content: bytes) -> str:
    """The first 16 digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def exports(run: pathlib.Path, world: tiny.World | None) -> dict[str, str]:
    """Digests of all tensor and JSON files of a run's exports, or "refused"."""
    opened, found = source.read_run(run), {}
    for target, format in EXPORTS.items():
        if format.packages:  # PyTorch's exporter does not promise the bytes of ONNX files.
            continue
        with tempfile.TemporaryDirectory() as place:
            out = pathlib.Path(place)
            try:
                if format.require is not None:
                    format.require(opened)
            except UsageError:
                found[target] = "refused"
                continue
            format.write(opened, out)
            if target == "torch" and world is not None:
                write_examples(run, [str(world.pairs), str(world.texts)], 2, out)
            for path in sorted(out.rglob("*")):
                if path.name == EXAMPLES_FILE:
                    for name, value in load_file(path).items():
                        content = f"{value.dtype} {value.shape} ".encode() + value.tobytes()
                        found[f"{target}/{path.name}/{name}"] = sha256(content)
                elif path.suffix in (".safetensors", ".json"):
                    found[f"{target}/{path.relative_to(out)}"] = sha256(path.read_bytes())
    return found


def imports(file: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    """Digests of every imported array, of the report without reasons, and of the run's exports."""
    name = file.name.split(".")[0]
    format, options = IMPORTS[name.partition("-")[0]], ImportOptions(**OPTIONS[name])
    format.run(file, options, out)
    lines = [line.partition(":")[0] for line in (out / "import.txt").read_text().splitlines()]
    found = {"report": sha256("\n".join(sorted(lines)).encode())}
    for item in ("params", "extra", "model_state"):
        for folder in (out / "checkpoints").glob(f"*/{item}"):
            reader = ocp.PyTreeCheckpointHandler()
            tree = reader.metadata(epath.Path(folder)).tree
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            arrays = reader.restore(
                epath.Path(folder), args=ocp.args.PyTreeRestore(item=tree, restore_args=how)
            )
            for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
                content = f"{leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes()
                leaf_name = jax.tree_util.keystr(path, simple=True, separator="/")
                found[f"{item}/{leaf_name}"] = sha256(content)
    if name.partition("-")[0] in ("vlmo", "beit", "beit2", "beit3"):
        found |= {f"export/{key}": value for key, value in exports(out, None).items()}
    return found


def main() -> int:
    """Prints the digests, and compares them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    given = parser.parse_args()
    if not given.folder.exists():
        make_inputs(given.folder)
    world = tiny.world_in(given.folder / "world")
    found = {}
    for run in sorted((given.folder / "runs").iterdir()):
        found |= {f"{run.name}/{name}": value for name, value in exports(run, world).items()}
    for file in sorted((given.folder / "files").iterdir()):
        with tempfile.TemporaryDirectory() as place:
            values = imports(file, pathlib.Path(place) / "out")
        found |= {f"{file.name}/{name}": value for name, value in values.items()}
    print(json.dumps(found, indent=1))
    if given.against is None:
        return 0
    wanted = json.loads(given.against.read_text())
    wrong = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    print(f"{len(wanted)} digests compared, {len(wrong)} differ", *wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
