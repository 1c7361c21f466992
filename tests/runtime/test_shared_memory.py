"""The size of /dev/shm: what Grain really needs fits in, and much less does not."""

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests import tiny
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.shared_memory import (
    HEADROOM,
    MIB,
    require_shared_memory,
    shared_memory,
)
from vlbeit_jax.tasks import parse

STREAM = {"batch_size": 64, "sources": ("D",), "num_masked_patches": 4, "mask_block": 2}
SMALL = {
    "task": {
        "schedule": "image+pair",
        "model": {"image_size": 64, "patch_size": 16},
        "tokenizer_model": {"encoder_depth": 1, "decoder_depth": 1},
        "image": STREAM,
        "pair": STREAM,
        "text": {"batch_size": 64, "sources": ("D",)},
        "text_tokenizer": "T",
        "visual_tokenizer": "V",
    },
    "loader": {"workers": 2},
    "run": {"evaluate_every": 0},
}


def config(**changed):
    values = {name: dict(part) for name, part in SMALL.items()}
    for path, value in changed.items():
        group, _, name = path.partition("__")
        values.setdefault(group, {})[name] = value
    return parse(values)


def held(hosts=1, chips=1, **changed):
    return shared_memory(config(**changed), hosts, chips) - HEADROOM


def test_the_size_is_that_of_the_batches():
    """Two streams of 64 images of 64 pixels: 12 kB each; texts and masks are small beside them."""
    images = 2 * 64 * 64 * 64 * 3 * (4 * 2 + 2)
    assert images < held() < 1.1 * images + MIB
    assert held(loader__workers=0) == 0 and held(task__schedule="image") < 0.6 * held()
    assert 1.9 < held(loader__workers=5) / held(loader__workers=2) < 2.3
    assert (
        1.4 < held(run__evaluate_every=10) / held() < 1.6
    )  # Batches of an evaluation, while training's are kept.


@pytest.mark.parametrize(
    ("hosts", "chips", "mesh", "share"),
    [
        (4, 4, {}, 4),
        (4, 4, {"mesh__fsdp": 4}, 4),
        (4, 4, {"mesh__tensor": 4}, 1),
        (4, 4, {"mesh__tensor": 2}, 2),
        (1, 8, {}, 1),
    ],
)
def test_a_host_holds_its_rows(hosts, chips, mesh, share):
    """Chips that share rows may lie on several hosts; then each of these reads them."""
    big = {"task__image": STREAM | {"batch_size": 1024}, "task__schedule": "image"}
    assert held(hosts, chips, **big, **mesh) == pytest.approx(
        held(**big) / share, rel=0.05, abs=MIB
    )


def test_a_mesh_that_does_not_fit_is_a_usage_error():
    for mesh in ({"mesh__tensor": 3}, {"mesh__data": 3, "mesh__fsdp": 2}, {"mesh__fsdp": 32}):
        with pytest.raises(UsageError, match="do not divide 4 hosts with 4 chips"):
            held(4, 4, **mesh)


class Usage(NamedTuple):
    total: int = 64 * MIB
    used: int = 4 * MIB
    free: int = 60 * MIB


def test_a_start_without_the_room_is_refused_and_both_figures_are_told(monkeypatch):
    """With 64 MB of /dev/shm, as Docker and Kubernetes give it."""
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage())
    big = {"task__image": STREAM | {"batch_size": 512}}
    need = shared_memory(config(**big), 1, 1) // MIB
    with pytest.raises(UsageError) as raised:
        require_shared_memory(config(**big), 1, 1)
    said = str(raised.value)
    assert "/dev/shm has 60 MiB free, but the batches of loader.workers=2 may take 68 MiB" in said
    assert f"--shm-size={need}m" in said and "loader.workers=0" in said
    require_shared_memory(config(), 1, 1)  # Smaller batches.
    require_shared_memory(config(**big), 2, 1)  # A host of two has half of the rows.
    require_shared_memory(config(loader__workers=0, **big), 1, 1)


READ = """
import json, sys, time
from vlbeit_jax.tasks import parse
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.sources import open_sources


if __name__ == "__main__":
    config = parse(json.loads(sys.argv[1]))
    grid = config.task.model.image_size // config.task.model.patch_size
    image = config.task.image
    make = MaskedExample(image, config.task.model.image_size, grid, None, True)
    examples = TrainingExamples("image", open_sources("image", image), make, seed=0)
    found = batches(examples, image.batch_size, loader=config.loader)
    for _ in range(3 * config.loader.workers):
        rows = next(found)
        time.sleep(0.4)  # The workers are ahead, and fill all their places.
    found.close()
    print("read")
"""


@pytest.mark.slow
def test_loader_processes_live_with_that_size_and_die_with_a_small_part(world, tmp_path):
    """In a mount namespace whose /dev/shm has just the size, without the headroom."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*namespace, "mount", "-t", "tmpfs", "t", "/dev/shm"], capture_output=True
        ).returncode
    ):
        pytest.skip("unshare cannot mount a /dev/shm of its own here")
    import json

    stream = {
        "batch_size": 256,
        "sources": (str(world.pairs),),
        "num_masked_patches": 4,
        "mask_block": 2,
    }
    task = {"schedule": "image", "image": stream, "visual_tokenizer": "V"}
    task["model"] = SMALL["task"]["model"]
    values = {"task": task, "loader": {"workers": 2}, "run": {"evaluate_every": 0}}
    parsed = parse(values)
    size = shared_memory(parsed, 1, 1) - HEADROOM
    script = tmp_path / "read.py"
    script.write_text(READ)

    def read(size):
        mounted = f'mount -t tmpfs -o size={size} t /dev/shm && exec "$@"'
        command = [
            *namespace,
            "sh",
            "-c",
            mounted,
            "sh",
            sys.executable,
            script,
            json.dumps(to_dict(parsed)),
        ]
        environment = os.environ | {"PYTHONPATH": str(tiny.TOP)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
        )

    enough = read(size)
    assert enough.returncode == 0 and enough.stdout == "read\n", enough.stderr
    little = read(size // 4)
    assert little.returncode != 0 and "exit code -7" in little.stderr, little.stderr
