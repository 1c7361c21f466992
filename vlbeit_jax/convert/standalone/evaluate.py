"""Masked accuracy on the held-back examples beside this file: the figures of vlbeit_jax.evaluate, from PyTorch alone.

    python evaluate.py [--json FILE] [--batch_size 64]

evaluation.safetensors holds images, masks and corrupted texts as the JAX program drew them; the visual tokens are made here.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from vlbeit_torch import check_files, load, normalise

FOLDER, EXAMPLES = pathlib.Path(__file__).parent, "evaluation.safetensors"
TERMS = {
    "image": {"image": "mim"},
    "text": {"text": "mlm"},
    "pair": {"image": "mvlm_image", "text": "mvlm_text"},
}


def evaluate(batch_size: int) -> dict[str, dict[str, float]]:
    """Accuracy, loss and number of masked positions of every term."""
    model, visual_tokenizer = load(FOLDER)
    check_files(FOLDER, [EXAMPLES])
    data = load_file(FOLDER / EXAMPLES)
    totals = {
        name: torch.zeros(3, dtype=torch.float64)
        for terms in TERMS.values()
        for name in terms.values()
    }
    for stream, terms in TERMS.items():
        examples = {
            name.removeprefix(f"{stream}/"): rows
            for name, rows in data.items()
            if name.startswith(f"{stream}/")
        }
        images = examples.pop(
            "image", None
        )  # Once a record; all else is once an example, and there are several masks a record.
        count = len(next(iter(examples.values()))) if examples else 0
        for start in range(0, count, batch_size):
            batch = {name: rows[start : start + batch_size] for name, rows in examples.items()}
            inputs, targets, weights = {}, {}, {}
            if images is not None:
                assert visual_tokenizer is not None, (
                    "images were exported without the tokenizer that names their targets"
                )
                record = torch.arange(start, min(start + batch_size, count)) % len(images)
                inputs["image"] = normalise(images[record].permute(0, 3, 1, 2))
                inputs["masked_patches"] = batch["masked_patches"].long()
                targets["image"] = visual_tokenizer.encode(inputs["image"]).gather(
                    1, inputs["masked_patches"]
                )
                weights["image"] = torch.ones(targets["image"].shape)
            if "text" in batch:
                inputs |= {"text": batch["text"].long(), "text_masked": batch["text_masked"].long()}
                targets["text"], weights["text"] = (
                    batch["text_targets"].long(),
                    batch["text_weights"],
                )
            found = model(**inputs)
            for modality, name in terms.items():
                logits = getattr(found, f"{modality}_logits")
                loss = cross_entropy(logits.transpose(1, 2), targets[modality], reduction="none")
                right = logits.argmax(dim=-1) == targets[modality]
                weight = weights[modality].double()
                totals[name] += torch.stack(
                    [(right * weight).sum(), (loss * weight).sum(), weight.sum()]
                )
    return {
        name: {
            "accuracy": float(right / weight),
            "loss": float(loss / weight),
            "count": int(weight),
        }
        for name, (right, loss, weight) in totals.items()
        if weight
    }


def main() -> int:
    """Prints a line a term, and writes JSON if asked to; 2: something is wrong with the arguments or the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--batch_size", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch_size={arguments.batch_size}: at least 1 is needed")
    if arguments.json and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        parser.error(f"--json={arguments.json}: name a file in an existing folder")
    if not (FOLDER / EXAMPLES).is_file():
        parser.error(f"no {EXAMPLES} here; export with vlbeit_jax.convert --to=torch --data=...")
    try:
        with torch.inference_mode():
            found = evaluate(arguments.batch_size)
    except ValueError as error:
        parser.error(str(error))
    for name, figures in found.items():
        print(
            f"{name:10s} accuracy {figures['accuracy']:.4%}  loss {figures['loss']:.4f}  over {figures['count']} masked positions"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
