"""Computes masked accuracy on the held-out examples in this folder, in PyTorch alone.

    python evaluate.py [--json FILE] [--batch_size 64]

evaluation.safetensors holds images, masks and masked texts as JAX drew them; visual tokens are
computed here. evaluation.json holds JAX's figures of the same examples, which are printed beside.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from vlbeit_torch import check_files, load, normalise

FOLDER = pathlib.Path(__file__).parent
EXAMPLES, JAX_FIGURES = "evaluation.safetensors", "evaluation.json"
TERMS = {
    "image": {"image": "mim"},
    "text": {"text": "mlm"},
    "pair": {"image": "mvlm_image", "text": "mvlm_text"},
}


def evaluate(batch_size: int) -> dict[str, dict[str, float]]:
    """Returns accuracy, loss and number of masked positions of every term."""
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
        # One image per record, but several masks: the other arrays have a row per mask.
        images = examples.pop("image", None)
        count = len(next(iter(examples.values()))) if examples else 0
        for start in range(0, count, batch_size):
            batch = {name: rows[start : start + batch_size] for name, rows in examples.items()}
            inputs, targets, weights = {}, {}, {}
            if images is not None:
                assert visual_tokenizer is not None, (
                    "images were exported without the visual tokenizer"
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
            output = model(**inputs)
            for modality, name in terms.items():
                logits = getattr(output, f"{modality}_logits")
                loss = cross_entropy(logits.transpose(1, 2), targets[modality], reduction="none")
                correct = logits.argmax(dim=-1) == targets[modality]
                weight = weights[modality].double()
                totals[name] += torch.stack(
                    [(correct * weight).sum(), (loss * weight).sum(), weight.sum()]
                )
    return {
        name: {
            "accuracy": float(correct / weight),
            "loss": float(loss / weight),
            "count": int(weight),
        }
        for name, (correct, loss, weight) in totals.items()
        if weight
    }


def main() -> int:
    """Prints one line per term; exits with code 2 if arguments or folder are wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    parser.add_argument("--batch_size", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch_size={arguments.batch_size}: give at least 1")
    if arguments.json and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        parser.error(f"--json={arguments.json}: name a file in an existing folder")
    if not (FOLDER / EXAMPLES).is_file():
        parser.error(f"no {EXAMPLES} here; export with vlbeit_jax.convert --to=torch --data=...")
    try:
        with torch.inference_mode():
            check_files(FOLDER, [JAX_FIGURES])
            results = evaluate(arguments.batch_size)
    except ValueError as error:
        parser.error(str(error))
    jax = json.loads((FOLDER / JAX_FIGURES).read_text(encoding="utf-8"))
    for name, figures in results.items():
        print(
            f"{name:10s} accuracy {figures['accuracy']:.4%} (JAX {jax[name]['accuracy']:.4%})  "
            f"loss {figures['loss']:.4f} (JAX {jax[name]['loss']:.4f})  "
            f"over {figures['count']} masked positions"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
