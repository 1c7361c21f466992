"""Measures ``python -m vlbeit_jax.prepare`` on JPEGs of 500 x 375 pixels and about 41 kB.

Usage: python -m tools.benchmark_prepare [PICTURES [WORKERS ...]], for example 4000 0 2

Prints, for each number of worker processes, examples per second of wall-clock time and of CPU time,
and the memory of the largest process. On a shared machine, the second figure varies less.
"""

import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator

from tools.command import run
from vlbeit_jax.benchmark_input import photographs
from vlbeit_jax.errors import UsageError

TARS = 8


def pairs(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Yields a key, a JPEG and a caption; a comment gives each file bytes of its own."""
    encoded = [record["image"] for _, record in photographs()]
    for number, jpeg in zip(range(count), itertools.cycle(encoded), strict=False):
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        yield f"{number:08d}", jpeg[:2] + segment + jpeg[2:], f"photograph {number}".encode()


def write_tars(folder: pathlib.Path, count: int) -> None:
    """Writes the pairs as webdataset tars."""
    found = pairs(count)
    for number in range(TARS):
        size = len(range(number, count, TARS))
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for key, image, caption in itertools.islice(found, size):
                for name, content in ((f"{key}.jpg", image), (f"{key}.txt", caption)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def measure(folder: pathlib.Path, count: int, workers: int) -> dict[str, float]:
    """Prepares the tars once."""
    command = [
        *(sys.executable, "-m", "vlbeit_jax.prepare", "--kind=pairs", f"--workers={workers}"),
        *(f"--input={folder}/*.tar", f"--out={folder}/out-{workers}"),
    ]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said)
    wall, processor = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    return {
        "workers": workers,
        "seconds": round(wall, 1),
        "examples_per_second": round(count / wall, 1),
        "examples_per_cpu_second": round(count / processor, 1),
        "cpu_ms_per_example": round(1e3 * processor / count, 2),
        "largest_process_mb": round(usage.ru_maxrss / 1e3),
    }


def main(arguments: list[str]) -> None:
    """Makes the pictures, and prints a line of JSON for each number of processes."""
    if not all(each.isdigit() for each in arguments):
        raise UsageError("give numbers: of pictures, and of worker processes")
    count, *workers = [int(each) for each in arguments] or [4000]
    with tempfile.TemporaryDirectory() as place:
        write_tars(pathlib.Path(place), count)
        for number in workers or (0, 2):
            print(json.dumps(measure(pathlib.Path(place), count, number)), flush=True)


if __name__ == "__main__":
    run(main, __doc__)
