"""Command: how fast the input pipeline makes examples, against decoding alone."""

import contextlib
import itertools
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from contextlib import closing

import cv2
import numpy as np
from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.config.streams import ImageStreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import TRAIN, open_set
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

OVERVIEW = """Measures how many image examples the pipeline makes per second of processor time
(one core): read, decode, crop, resize, jitter, mask, batch. Measures decoding alone as well.

  python -m vlbeit_jax.benchmark_input --data=sample:pairs --image_size=64 --patch_size=8
  python -m vlbeit_jax.benchmark_input --data=synthetic

Synthetic images are JPEGs of 500 x 375 pixels and about 41 kB, made for the measurement."""

DATA = flags.DEFINE_string(
    "data", "synthetic", "prepared data set of images or pairs, or synthetic images"
)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "side of the view in pixels", lower_bound=8)
PATCH_SIZE = flags.DEFINE_integer("patch_size", 16, "side of a patch in pixels", lower_bound=1)
BATCH = flags.DEFINE_integer("batch_size", 64, "examples in a batch", lower_bound=1)
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "length of each measurement in seconds", lower_bound=0.1
)
WORKERS = flags.DEFINE_integer(
    "workers", 0, "loader processes; their processor time counts", lower_bound=0
)
JPEGS, QUALITY = 64, 90


def main() -> None:
    """Measures and prints JSON."""
    with tempfile.TemporaryDirectory() as folder:
        place = DATA.value
        if place == "synthetic":
            place = str(pathlib.Path(folder) / "synthetic")
            write_set(pathlib.Path(place), Kind.IMAGES, photographs(), shards=1, meta={})
        prepared = open_set(place, Kind.IMAGES, Kind.PAIRS)
        records = prepared.records(TRAIN)
        encoded = [records[index % len(records)]["image"] for index in range(256)]
        found = {
            "data": DATA.value,
            "bytes_per_image": round(float(np.mean([len(each) for each in encoded]))),
        }
        turns = itertools.cycle(encoded)
        found["decode"] = _rate(lambda: [decode(next(turns)) for _ in range(16)])
        grid = IMAGE_SIZE.value // PATCH_SIZE.value
        masked = round(0.38 * grid**2)
        stream = ImageStreamConfig(
            sources=(place,),
            batch_size=BATCH.value,
            num_masked_patches=masked,
            mask_block=min(16, masked),
        )
        make = MaskedExample(stream, IMAGE_SIZE.value, grid, None, True)
        examples = TrainingExamples("image", [prepared], make, seed=0)
        data = LoaderConfig(workers=WORKERS.value, read_threads=1, prefetch=2)
        with closing(pipeline.batches(examples, stream.batch_size, loader=data)) as batches:
            next(batches)
            found["pipeline"] = _rate(lambda: next(batches)["uid"])
    found["pipeline_over_decode"] = round(
        found["pipeline"]["per_core_second"] / found["decode"]["per_core_second"], 3
    )
    print(json.dumps(found, indent=1))


def _rate(work: Callable[[], list | np.ndarray]) -> dict[str, float]:
    """Images per second of processor time and of wall-clock time."""
    count, wall, processor = 0, time.perf_counter(), _processor_time()
    while time.perf_counter() - wall < SECONDS.value:
        count += len(work())
    return {
        "per_core_second": round(count / (_processor_time() - processor), 1),
        "per_wall_second": round(count / (time.perf_counter() - wall), 1),
    }


def _processor_time() -> float:
    """Returns the seconds of processor time of this process and of the loader processes."""
    total, waiting = time.process_time(), [os.getpid()]
    while waiting:
        process = waiting.pop()
        # A process that has just ended has no folder any more.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in pathlib.Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
            if process != os.getpid():
                # The name of the program, in parentheses, may contain anything.
                fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
                user, system = fields.split()[11:13]
                total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def photographs():
    """JPEGs with the size and entropy of photographs: smooth colours, some edges, some noise."""
    rng = np.random.default_rng(0)
    for index in range(JPEGS):
        small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        image = cv2.resize(small, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        yield (
            TRAIN,
            {"id": f"photograph/{index}", "source": f"photograph/{index}.jpg", "image": jpeg},
        )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
