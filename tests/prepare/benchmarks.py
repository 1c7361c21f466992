"""Miniatures of published benchmarks, in the layouts of their official files."""

import json
import pathlib

import numpy as np
import scipy.io

from tests.make_data import build, encoded, picture
from vlbeit_jax.types import Kind


def jpeg(path: pathlib.Path, number: int) -> None:
    """Writes a picture of which no two numbers are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(number), "JPEG"))


def answers(*texts: str) -> list[dict]:
    """Ten people's answers: the texts in turn."""
    return [
        {"answer": texts[i % len(texts)], "answer_confidence": "yes", "answer_id": i + 1}
        for i in range(10)
    ]


def write_json(path: pathlib.Path, found: object) -> None:
    path.write_text(json.dumps(found))


def vqav2(folder: pathlib.Path, train: int = 4, val: int = 3, test: int = 2) -> pathlib.Path:
    """VQA v2 with a few pictures in each part and two questions about each, in no order."""
    parts = {"train2014": train, "val2014": val, "test2015": test}
    for start, (subset, count) in zip((100, 200, 300), parts.items(), strict=True):
        questions = [
            {
                "image_id": start + image,
                "question": f"what is in picture {start + image}, part {turn}?",
                "question_id": 1000 * (start + image) + turn,
            }
            for turn in range(2)
            for image in reversed(range(count))
        ]
        for image in range(count):
            name = f"COCO_{subset}_{start + image:012d}.jpg"
            jpeg(folder / subset / name, start + image)
        head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": subset}
        write_json(
            folder / f"v2_OpenEnded_mscoco_{subset}_questions.json",
            {**head, "task_type": "Open-Ended", "questions": questions},
        )
        if subset != "test2015":
            noted = [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": "dog",
                    "answers": answers("dog", "a dog", "cat"),
                    "image_id": each["image_id"],
                    "answer_type": "other",
                    "question_id": each["question_id"],
                }
                for each in questions
            ]
            write_json(
                folder / f"v2_mscoco_{subset}_annotations.json", {**head, "annotations": noted}
            )
    dev = json.loads((folder / "v2_OpenEnded_mscoco_test2015_questions.json").read_text())
    dev["questions"] = dev["questions"][:2]
    write_json(folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json", dev)
    return folder


def karpathy_coco(folder: pathlib.Path) -> pathlib.Path:
    """Two pictures of each split; the first one has six captions, two of them shared."""
    records = []
    for number, split in enumerate(s for s in ("train", "restval", "val", "test") for _ in "ab"):
        below = "train2014" if split == "train" else "val2014"
        name = f"COCO_{below}_{number:012d}.jpg"
        jpeg(folder / below / name, number)
        raw = [f"picture {number} has caption {turn}.\n" for turn in range(5)]
        raw += ["A man riding a wave."] if number % 2 == 0 else []
        records.append(
            {
                "filepath": below,
                "sentids": list(range(len(raw))),
                "filename": name,
                "imgid": number,
                "split": split,
                "sentences": [
                    {"tokens": text.split(), "raw": text, "imgid": number, "sentid": turn}
                    for turn, text in enumerate(raw)
                ],
                "cocoid": number + 5000,
            }
        )
    write_json(folder / "dataset_coco.json", {"images": records, "dataset": "coco"})
    return folder / "dataset_coco.json"


def karpathy_flickr30k(folder: pathlib.Path) -> pathlib.Path:
    """Flickr30k's records name no folder and no number of COCO."""
    path = karpathy_coco(folder)
    records = json.loads(path.read_text())["images"]
    for record in records:
        source = folder / record.pop("filepath") / record["filename"]
        record["filename"] = f"{record.pop('cocoid')}.jpg"
        record["split"] = record["split"].replace("restval", "train")
        (folder / "flickr30k-images").mkdir(exist_ok=True)
        source.rename(folder / "flickr30k-images" / record["filename"])
    path.unlink()
    write_json(folder / "dataset_flickr30k.json", {"images": records, "dataset": "flickr30k"})
    return folder / "dataset_flickr30k.json"


WNIDS = ("n01440764", "n02012849", "n03126707")
SYNSETS = dict(zip(WNIDS, ("tench, Tinca tinca", "crane", "crane"), strict=True))
VAL = {"00000001": WNIDS[2], "00000002": WNIDS[0], "00000003": WNIDS[1], "00000004": WNIDS[2]}


def imagenet(folder: pathlib.Path, val: str = "folders") -> pathlib.Path:
    """Three classes; ``val``: "folders", "solution" (as on Kaggle) or "kit"."""
    for number, wnid in enumerate(WNIDS):
        for turn in range(2):
            jpeg(folder / "train" / wnid / f"{wnid}_{10 * turn + number}.JPEG", 10 * turn + number)
    for number, (stem, wnid) in enumerate(VAL.items()):
        name = f"ILSVRC2012_val_{stem}.JPEG"
        jpeg(folder / "val" / (f"{wnid}/{name}" if val == "folders" else name), 50 + number)
    if val == "solution":
        rows = [f"ILSVRC2012_val_{stem},{wnid} 1 2 3 4 " for stem, wnid in reversed(VAL.items())]
        (folder / "LOC_val_solution.csv").write_text(
            "\n".join(["ImageId,PredictionString", *rows]) + "\n"
        )
    if val == "kit":
        _kit(folder / "ILSVRC2012_devkit_t12" / "data")
    return folder


def _kit(folder: pathlib.Path) -> None:
    """The development kit: its numbers are not in the order of the WordNet IDs."""
    folder.mkdir(parents=True)
    order = [WNIDS[2], WNIDS[0], WNIDS[1], "n00001740"]  # The last one is no leaf.
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    synsets = np.array([(i + 1, wnid, 0) for i, wnid in enumerate(order)], dtype=fields)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    truth = [order.index(wnid) + 1 for wnid in VAL.values()]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(
        "".join(f"{number}\n" for number in truth)
    )


MADE = {
    "vqav2": vqav2,
    "karpathy": karpathy_coco,
    "imagenet": imagenet,
}
KINDS = {
    "vqav2": Kind.QUESTIONS,
    "vqav2-trainval": Kind.QUESTIONS,
    "karpathy": Kind.PAIRS,
    "imagenet": Kind.LABELLED_IMAGES,
}


def prepare(folder: pathlib.Path, source: pathlib.Path, name: str, **changed) -> dict:
    """Prepares a miniature as ``folder/set``."""
    return build(folder / "set", KINDS[name], [source], source_format=name, **changed)
