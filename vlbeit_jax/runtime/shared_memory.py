"""How much of a host's /dev/shm the loader processes need."""

import math
import mmap
import pathlib
import shutil
from collections.abc import Mapping

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import row_shapes

SHARED = pathlib.Path("/dev/shm")
MIB = 2**20
HEADROOM = 256 * MIB  # For everything else that uses /dev/shm, such as XLA's runtime.
# Batches of one stream in /dev/shm. A loader process holds one that it waits to hand over and one
# in its queue. The trainer's thread for this process holds one that it took from the queue and one
# that it waits to hand over. Two more are in use or not yet freed.
PER_WORKER, PER_STREAM = 4, 2


def shared_memory(config: Config, hosts: int, chips: int) -> int:
    """Returns the bytes of ``/dev/shm`` that every host needs, rounded up to whole MiB.

    They hold the training batches of all streams of the schedule, the batches of one evaluation (of
    the largest stream), and ``HEADROOM``.

    Args:
      config: of the run.
      hosts: number of hosts, with one process each.
      chips: chips per host.

    Raises:
      UsageError: the mesh does not fit the chips.
    """
    return math.ceil((_batches_bytes(config, hosts, chips) + HEADROOM) / MIB) * MIB


def require_shared_memory(config: Config, hosts: int, chips: int) -> None:
    """Checks that the batches of the loader processes have room in this host's ``/dev/shm``.

    Without it, a loader process dies of SIGBUS and says nothing.

    Args:
      config: of the run.
      hosts: number of hosts, with one process each.
      chips: chips per host.

    Raises:
      UsageError: there is less room than they may take.
    """
    if not config.loader.workers or not SHARED.is_dir():
        return
    free, needed = shutil.disk_usage(SHARED).free, _batches_bytes(config, hosts, chips)
    if free < needed:
        asked = shared_memory(config, hosts, chips) // MIB
        raise UsageError(
            f"{SHARED} has {free / MIB:,.0f} MiB free, but the batches of "
            f"loader.workers={config.loader.workers} may take {needed / MIB:,.0f} MiB there, and "
            f"loader processes would die of SIGBUS. Make it {asked:,} MiB (docker run "
            f"--shm-size={asked}m; Kubernetes: an emptyDir with medium: Memory at {SHARED}), or "
            "set loader.workers=0, which uses threads and needs none"
        )


def _batches_bytes(config: Config, hosts: int, chips: int) -> int:
    """Returns the bytes that batches may take in ``/dev/shm``; 0 without loader processes."""
    task = config.task
    batches = {name: row_shapes(task, name) for name in task.streams()}
    workers = config.loader.workers
    held = [
        _batch_bytes(batch, _share(config, hosts, chips)) * (PER_WORKER * workers + PER_STREAM)
        for batch in batches.values()
    ]
    if not workers:  # Threads of the trainer use the trainer's own memory.
        held = [0]
    evaluation = max(held) if config.run.evaluate_every else 0
    return sum(held) + evaluation


def _share(config: Config, hosts: int, chips: int) -> float:
    """Returns the largest share of a batch's rows that a host may read.

    In the worst case, all of its chips have different rows.
    """
    mesh, devices = config.mesh, hosts * chips
    blocks = devices // mesh.tensor if mesh.data == -1 else mesh.data * mesh.fsdp
    if blocks * mesh.tensor != devices or blocks % mesh.fsdp:
        raise UsageError(
            f"config.mesh: data={mesh.data} fsdp={mesh.fsdp} tensor={mesh.tensor} do not divide "
            f"{hosts} hosts with {chips} chips each: their product has to be {devices} (data=-1: "
            "fsdp x tensor has to divide it); change config.mesh, the hosts or the chips"
        )
    return min(chips, blocks) / blocks


def _batch_bytes(batch: Mapping[str, jax.ShapeDtypeStruct], share: float) -> int:
    """Returns the bytes of a host's rows of a batch; every array begins on a page of its own."""
    pages = 0
    for leaf in batch.values():
        rows = math.ceil(leaf.shape[0] * share)
        pages += math.ceil(rows * math.prod(leaf.shape[1:]) * leaf.dtype.itemsize / mmap.PAGESIZE)
    return pages * mmap.PAGESIZE
