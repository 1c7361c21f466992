"""Command: how fast the input pipeline makes examples, against decoding alone."""

import itertools
import json
import pathlib
import tempfile
from contextlib import closing
from typing import Any

import cv2
import numpy as np
from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.config.streams import (
    ImageStreamConfig,
    PairStreamConfig,
    StreamConfig,
    TextStreamConfig,
)
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import TRAIN, PreparedSet, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.runtime.input_rate import Rate, rate
from vlbeit_jax.types import Kind

OVERVIEW = """Measures how many examples of each stream the pipeline makes per second of CPU time
(one core) and of wall-clock time: read, decode, crop, resize, jitter, mask, tokenise, batch.
Measures decoding alone as well. Says how many cores one host of a pod needs.

  python -m vlbeit_jax.benchmark_input --data=synthetic
  python -m vlbeit_jax.benchmark_input --data=synthetic --workers=2 --step_seconds=0.1
  python -m vlbeit_jax.benchmark_input --data=sample:pairs --image_size=64 --patch_size=8

Synthetic images are JPEGs of 500 x 375 pixels and about 41 kB, made for the measurement, with
captions of the sample. CPU time is that of this process and of its loader processes."""

SAMPLE_TOKENIZER = pathlib.Path(__file__).parent / "sample_model" / "text_tokenizer"
DATA = flags.DEFINE_string(
    "data", "synthetic", "prepared data set of images or pairs, or synthetic pairs"
)
TEXT_TOKENIZER = flags.DEFINE_string(
    "text_tokenizer", str(SAMPLE_TOKENIZER), "text tokenizer of the captions; default: the sample's"
)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "side of the view in pixels", lower_bound=8)
PATCH_SIZE = flags.DEFINE_integer("patch_size", 16, "side of a patch in pixels", lower_bound=1)
BATCH = flags.DEFINE_integer("batch_size", 64, "examples in a batch", lower_bound=1)
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "length of each measurement in seconds", lower_bound=0.1
)
WORKERS = flags.DEFINE_integer(
    "workers", 0, "loader processes; 0: threads of this one", lower_bound=0
)
STEP_SECONDS = flags.DEFINE_float(
    "step_seconds",
    0.0,
    "time that a train step takes after each batch; wait_share is the share of time it waits",
    lower_bound=0.0,
)
POD_HOSTS = flags.DEFINE_integer(
    "pod_hosts", 64, "hosts of the pod; v5e-256 has 64 of four chips", lower_bound=1
)
POD_STEP_SECONDS = flags.DEFINE_float(
    "pod_step_seconds",
    0.0315,
    "time of a step of 2,048 rows of each stream on the pod; default: the compiler's shorter "
    "estimate for configs/pretrain_base.py on v5e-256 (docs/scale.md)",
    lower_bound=1e-6,
)
POD_BATCH = 2048
JPEGS, QUALITY = 64, 90


def main() -> None:
    """Measures and prints JSON."""
    with tempfile.TemporaryDirectory() as folder:
        place = DATA.value
        if place == "synthetic":
            place = str(pathlib.Path(folder) / "synthetic")
            write_set(pathlib.Path(place), Kind.PAIRS, photographs(), shards=1, meta={})
        prepared = open_set(place, Kind.IMAGES, Kind.PAIRS)
        print(json.dumps(_measured(prepared), indent=1))


def _measured(prepared: PreparedSet) -> dict[str, Any]:
    records = prepared.records(TRAIN)
    encoded = [records[index % len(records)]["image"] for index in range(256)]
    size = float(np.mean([len(each) for each in encoded]))
    turns = itertools.cycle(encoded)
    decoding = rate(lambda: len([decode(next(turns)) for _ in range(16)]), SECONDS.value)
    figures: dict[str, Any] = {
        "data": DATA.value,
        "bytes_per_image": round(size),
        "decode": decoding.described(size),
    }
    rates = {}
    for name, stream in _streams(prepared).items():
        rates[name] = _rate_of(name, stream, prepared)
        has_image = isinstance(stream, ImageStreamConfig)
        figures[name] = rates[name].described(size if has_image else 0, _tokens(stream))
    figures["pipeline_over_decode"] = round(rates["image"].per_core / decoding.per_core, 3)
    per_host = POD_BATCH / POD_HOSTS.value / POD_STEP_SECONDS.value
    cores = {name: round(per_host / each.per_core, 1) for name, each in rates.items()}
    figures["pod_host"] = {"rows_per_second_of_each_stream": round(per_host), "cores": cores}
    return figures


def _grid() -> int:
    return IMAGE_SIZE.value // PATCH_SIZE.value


def _streams(prepared: PreparedSet) -> dict[str, StreamConfig]:
    """Returns the streams of pretraining that the set serves, with the recipe's shares of masks."""
    masked = round(0.38 * _grid() ** 2)
    image: dict[str, Any] = {
        "batch_size": BATCH.value,
        "num_masked_patches": masked,
        "mask_block": min(16, masked),
    }
    streams: dict[str, StreamConfig] = {"image": ImageStreamConfig(**image)}
    if prepared.kind is Kind.PAIRS:
        streams["pair"] = PairStreamConfig(**image, crop_scale=0.5, text_length=59, masked_text=0.5)
        streams["text"] = TextStreamConfig(batch_size=BATCH.value, text_length=128)
    return streams


def _tokens(stream: StreamConfig) -> int:
    """Returns how many tokens a row gives the network: patches with CLS, and word pieces."""
    patches = _grid() ** 2 + 1 if isinstance(stream, ImageStreamConfig) else 0
    return patches + (stream.text_length if isinstance(stream, TextStreamConfig) else 0)


def _rate_of(name: str, stream: StreamConfig, prepared: PreparedSet) -> Rate:
    has_text = isinstance(stream, TextStreamConfig)
    tokenizer = TextTokenizer(TEXT_TOKENIZER.value) if has_text else None
    make = MaskedExample(stream, IMAGE_SIZE.value, _grid(), tokenizer, True)
    examples = TrainingExamples(name, [prepared], make, seed=0)
    loader = LoaderConfig(workers=WORKERS.value, read_threads=1, prefetch=2)
    with closing(pipeline.batches(examples, stream.batch_size, loader=loader)) as batches:
        for _ in range(2 + WORKERS.value):  # The first batches wait for processes to start.
            next(batches)
        return rate(lambda: len(next(batches)["uid"]), SECONDS.value, STEP_SECONDS.value)


def photographs():
    """JPEGs with the size and entropy of photographs: smooth colours, some edges, some noise."""
    rng = np.random.default_rng(0)
    captions = open_set("sample:pairs").records(TRAIN)
    for index in range(JPEGS):
        small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        image = cv2.resize(small, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        yield (
            TRAIN,
            {
                "id": f"photograph/{index}",
                "source": f"photograph/{index}.jpg",
                "image": jpeg,
                "captions": [each.decode() for each in captions[index]["captions"]],
            },
        )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
