"""Evaluates the fine-tuned model in this folder on the examples in this folder, in PyTorch alone.

    python evaluate.py [--json FILE] [--batch_size 64]

evaluation.safetensors holds the images, the word pieces and the right answers that
vlbeit_jax.evaluate used. evaluation.json holds the figures that JAX computed from these examples.
The command prints them beside PyTorch's.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Iterator

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from vlbeit_finetuned import Captioner, Classifier, DualEncoder, check_files, load, normalise
from vlbeit_segments import segmentation

FOLDER, EXAMPLES, JAX_FIGURES = (
    pathlib.Path(__file__).parent,
    "evaluation.safetensors",
    "evaluation.json",
)
CUTS, ROWS_AT_A_TIME = (1, 5, 10), 256
IMAGES = ("image", "second_image")
Data = dict[str, Tensor]
Figures = dict[str, float]


def rows_of(data: Data, names: tuple[str, ...], batch_size: int) -> Iterator[Data]:
    """Yields batches of inputs, normalised and with the types that the model takes."""
    count = len(data[names[0]])
    for start in range(0, count, batch_size):
        yield {name: prepared(name, data[name][start : start + batch_size]) for name in names}


def prepared(name: str, rows: Tensor) -> Tensor:
    """Returns rows of examples as the model takes them."""
    return normalise(rows.permute(0, 3, 1, 2)) if name in IMAGES else rows.long()


def classification(model: Classifier, data: Data, batch_size: int) -> Figures:
    """Returns accuracies; a class that is as likely as the right one counts as more likely."""
    inputs = tuple(name for name in ("image", "text") if name in data)
    logits = torch.cat([model(**batch) for batch in rows_of(data, inputs, batch_size)])
    label = data["label"].long()
    right = logits.gather(1, label[:, None])
    rank = (~(logits < right)).sum(dim=1) - 1
    is_right = (rank == 0).double()
    of_class = [is_right[label == number].mean() for number in label.unique()]
    return {
        "accuracy": float(is_right.mean()),
        **({"top5": float((rank < 5).double().mean())} if logits.shape[1] > 5 else {}),
        "mean_class": float(torch.stack(of_class).mean()),
        "loss": float(cross_entropy(logits.double(), label)),
        "count": len(label),
    }


def vqa(model: Callable[..., Tensor], data: Data, batch_size: int) -> Figures:
    """Returns the mean score of the most likely answers, over all questions and by type of answer.

    Each question comes with the answers of the list whose score is not 0, and with these scores.
    """
    batches = rows_of(data, ("image", "text"), batch_size)
    chosen = torch.cat([model(**batch).argmax(dim=1) for batch in batches])
    score = ((data["answers"] == chosen[:, None]) * data["scores"].double()).sum(dim=1)
    types = {name.removeprefix("type/"): rows for name, rows in data.items() if "type/" in name}
    by_type = {f"accuracy_{name}": float(score[rows.bool()].mean()) for name, rows in types.items()}
    return {"accuracy": float(score.mean()), "count": len(score), **by_type}


def visual_reasoning(model: Callable[..., Tensor], data: Data, batch_size: int) -> Figures:
    """Returns accuracy, and consistency: the share of statements whose examples are all right.

    A tie between false and true is wrong.
    """
    batches = rows_of(data, (*IMAGES, "text"), batch_size)
    logits = torch.cat([model(**batch) for batch in batches])
    truth, statement = data["truth"].long(), data["statement"].long()
    right = logits.gather(1, truth[:, None]) > logits.gather(1, 1 - truth[:, None])
    is_right = right[:, 0].double()
    consistent = [is_right[statement == number].amin() for number in statement.unique()]
    return {
        "accuracy": float(is_right.mean()),
        "consistency": float(torch.stack(consistent).mean()),
        "loss": float(cross_entropy(logits.double(), truth)),
        "count": len(truth),
        "statements": len(consistent),
    }


def retrieval(model: DualEncoder, data: Data, batch_size: int) -> Figures:
    """Returns the share of images and of texts whose right answer is among the best k.

    A wrong candidate with the same score as the right one counts as better. With matching, the best
    candidates are also ranked again by the logit of "yes" minus that of "no".
    """
    image = torch.cat(
        [model.embed_image(**batch) for batch in rows_of(data, ("image",), batch_size)]
    )
    text = torch.cat([model.embed_text(**batch) for batch in rows_of(data, ("text",), batch_size)])
    scores = image.float() @ text.float().T
    own = data["owner"] == torch.arange(len(image))[:, None]
    ranks = {
        "image_to_text": ranks_of(scores, own),
        "text_to_image": ranks_of(scores.T, own.T),
    }
    figures = {f"retrieval/{name}": value for name, value in recalls(ranks).items()}
    if not model.network["rerank"]:
        return figures
    images, texts = torch.arange(len(image))[:, None], torch.arange(len(text))[:, None]
    best_texts = candidates(scores, own, model.network["rerank"])
    best_images = candidates(scores.T, own.T, model.network["rerank"])
    of_texts = matched(model, data, images.expand_as(best_texts), best_texts, batch_size)
    of_images = matched(model, data, best_images, texts.expand_as(best_images), batch_size)
    again = {
        "image_to_text": reranked(ranks["image_to_text"], own.gather(1, best_texts), of_texts),
        "text_to_image": reranked(ranks["text_to_image"], own.T.gather(1, best_images), of_images),
    }
    return figures | {f"reranked/{name}": value for name, value in recalls(again).items()}


def ranks_of(scores: Tensor, own: Tensor) -> Tensor:
    """Returns the rank of each query's best right choice among the wrong ones; 1 is the first.

    Args:
      scores: [queries, choices].
      own: [queries, choices]; whether the choice is right.
    """
    found = []
    for row, right in zip(scores.split(ROWS_AT_A_TIME), own.split(ROWS_AT_A_TIME), strict=True):
        best = row.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((row >= best) & ~right).sum(dim=1))
    return torch.cat(found)


def candidates(scores: Tensor, own: Tensor, count: int) -> Tensor:
    """Returns each query's best choices [queries, count]; wrong ones come first among equals."""
    found = []
    for row, right in zip(scores, own, strict=True):
        wrong_first = right.int().argsort(stable=True)
        order = row[wrong_first].argsort(descending=True, stable=True)
        found.append(wrong_first[order][:count])
    return torch.stack(found)


def reranked(ranks: Tensor, own: Tensor, scores: Tensor) -> Tensor:
    """Returns ranks by the candidates' new scores; with no right candidate, the old rank stays."""
    among = ranks_of(scores, own)
    return torch.where(own.any(dim=1), among, ranks)


def matched(
    model: DualEncoder, data: Data, images: Tensor, texts: Tensor, batch_size: int
) -> Tensor:
    """Returns the logit of "yes" minus that of "no", in the shape of the numbers of the pairs."""
    image, text, found = images.reshape(-1), texts.reshape(-1), []
    for start in range(0, len(image), batch_size):
        rows = slice(start, start + batch_size)
        pixels = prepared("image", data["image"][image[rows]])
        logits = model.match(pixels, prepared("text", data["text"][text[rows]]))
        found.append(logits[:, 1] - logits[:, 0])
    return torch.cat(found).reshape(images.shape)


def recalls(ranks: dict[str, Tensor]) -> Figures:
    """Returns the share of ranks of at most 1, 5 and 10, by direction."""
    return {
        f"{name}/recall_{cut}": float((found <= cut).double().mean())
        for name, found in ranks.items()
        for cut in CUTS
    }


def captioning(model: Captioner, data: Data, batch_size: int) -> Figures:
    """Returns BLEU, ROUGE-L and CIDEr-D of the model's captions; needs sentencepiece.

    "references" holds the captions that people wrote, as JSON in UTF-8: a list for each image.
    """
    import sentencepiece
    from caption_scores import scores, words  # pyright: ignore[reportMissingImports]

    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(FOLDER / "text_tokenizer" / "sentencepiece.model")
    )
    rows = [
        row
        for batch in rows_of(data, ("image",), batch_size)
        for row in model.caption(batch["image"]).tolist()
    ]
    written = [pieces.decode(row) for row in rows]
    given = json.loads(bytes(data["references"].tolist()))
    found = scores([words(each) for each in written], [list(map(words, own)) for own in given])
    return {
        "cider": sum(found.cider) / len(found.cider),
        **{f"bleu_{n}": value for n, value in enumerate(found.bleu, 1)},
        "rouge_l": sum(found.rouge_l) / len(found.rouge_l),
        "count": len(written),
    }


METRICS = {
    "classification": classification,
    "vqa": vqa,
    "visual_reasoning": visual_reasoning,
    "retrieval": retrieval,
    "captioning": captioning,
    "segmentation": segmentation,
}


def evaluate(batch_size: int) -> tuple[Figures, dict]:
    """Returns PyTorch's figures, and JAX's figures with their protocol."""
    model = load(FOLDER)
    check_files(FOLDER, [EXAMPLES, JAX_FIGURES])
    data = load_file(FOLDER / EXAMPLES)
    figures = METRICS[model.network["kind"]](model, data, batch_size)
    return figures, json.loads((FOLDER / JAX_FIGURES).read_text(encoding="utf-8"))


def main() -> int:
    """Prints one line per figure; exits with code 2 if the arguments or the folder are wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=pathlib.Path, help="file that gets the figures")
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
            figures, jax = evaluate(arguments.batch_size)
    except ValueError as error:
        parser.error(str(error))
    protocol, metrics = jax["protocol"], jax["metrics"]
    print(f"{protocol['task']}, {protocol['split']}, {protocol['weights']} weights")
    print(f"{'':36s} {'PyTorch':>9s} {'JAX':>9s}")
    for name, value in figures.items():
        print(f"{name:36s} {value:9.6g} {metrics[name]:9.6g}")
    if arguments.json:
        found = {"metrics": figures, "jax": {name: metrics[name] for name in figures}}
        arguments.json.write_text(json.dumps(found | {"protocol": protocol}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
