"""Settings that do not depend on the task: run, optimizer, loader, mesh, cluster."""

import dataclasses
from collections.abc import Iterable

from vlbeit_jax.config.schema import (
    AT_LEAST_0,
    FOLLOWS_OR_AT_LEAST_0,
    FOLLOWS_OR_POSITIVE,
    OPEN_SHARE,
    PART,
    POSITIVE,
    SECONDS,
    SEED,
    SHARE,
    Bound,
    one_of,
    setting,
)

# Words of ``OptimizerConfig.trainable``.
ALL, HEADS, TOP = "all", "heads", "top:"
# Smaller numbers are zero on devices without subnormal numbers, and AdamW would divide zero by zero
# (``training.guard``).
LARGE_ENOUGH = Bound("in [1e-16, 1)", lambda value: 1e-16 <= value < 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warm-up and decay of the learning rate, on BEiT's schedule."""

    peak_lr: float = setting(2e-3, "learning rate after warm-up", POSITIVE)
    end_lr: float = setting(1e-5, "learning rate at the last step", AT_LEAST_0)
    warmup_steps: int = setting(
        10_000, "steps of linear warm-up from 0; -1: warmup_share of the run", FOLLOWS_OR_AT_LEAST_0
    )
    warmup_share: float = setting(
        0.05, "warm-up as a share of the run's steps, with warmup_steps=-1", OPEN_SHARE
    )
    lr_decay: str = setting(
        "cosine",
        "from peak to end: half a cosine, a line, or (1 - progress) to the power lr_power",
        one_of("cosine", "linear", "polynomial"),
    )
    lr_power: float = setting(2.0, "exponent of lr_decay=polynomial", POSITIVE)
    layer_decay: float = setting(
        1.0, "learning rate of a layer over that of the layer above it; 1: the same for all", PART
    )
    head_factor: float = setting(1.0, "learning rate of a new head over that of the rest", POSITIVE)
    ema_decay: float = setting(
        0.0,
        "decay of averaged parameters, which are kept and evaluated beside the raw ones; 0: none",
        OPEN_SHARE,
    )
    beta1: float = setting(0.9, "decay of the first moment", OPEN_SHARE)
    beta2: float = setting(0.98, "decay of the second moment", OPEN_SHARE)
    eps: float = setting(1e-6, "added to the root of the second moment", LARGE_ENOUGH)
    weight_decay: float = setting(
        0.05, "decoupled weight decay of kernels and word embeddings", AT_LEAST_0
    )
    clip_norm: float = setting(3.0, "largest global gradient norm; 0: no clipping", AT_LEAST_0)
    trainable: str = setting(
        ALL,
        "parameters that are trained; all others keep their initial values: all; or, separated by "
        "commas, heads, top:K (the K top blocks, last norms and heads), and names of parameters, "
        "where * matches any characters (encoder/block_*/vision/*,vision_head/*)",
    )

    def problems(self) -> Iterable[str]:
        """Returns what is wrong between settings; each text begins with a setting's name."""
        # The first moment is then at most so many roots of the second one, whatever the gradients
        # were (Cauchy-Schwarz), so that no update is larger (``training.guard``).
        if self.beta1 and self.beta2 <= self.beta1**2:
            yield f"beta2={self.beta2} must be above the square of beta1={self.beta1}"
        yield from _trainable_problems(self.trainable)


def _trainable_problems(trainable: str) -> Iterable[str]:
    """Returns what is wrong without knowing the network: see ``training.trainable``."""
    parts = [part.strip() for part in trainable.split(",")]
    if not all(parts):
        yield f"trainable={trainable!r} has an empty part; give {ALL}, {HEADS}, {TOP}K or names"
    elif ALL in parts and parts != [ALL]:
        yield f"trainable={trainable!r}: {ALL} stands alone"
    for part in parts:
        count = part.removeprefix(TOP)
        if part.startswith(TOP) and not (count.isdecimal() and int(count)):
            yield f"trainable={trainable!r}: {part!r} must be {TOP} and a number of blocks, > 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How batches are prefetched. No setting here changes the examples of a step."""

    workers: int = setting(0, "loader processes per host; 0: threads of this process", AT_LEAST_0)
    read_threads: int = setting(2, "threads per loader process", POSITIVE)
    prefetch: int = setting(4, "batches read ahead per loader process", POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; their product is the number of devices."""

    data: int = setting(
        -1,
        "data parallel; -1: all remaining devices",
        Bound("-1 or > 0", lambda v: v == -1 or v > 0),
    )
    fsdp: int = setting(1, "batch and parameters sharded together", POSITIVE)
    tensor: int = setting(1, "heads, FFN and vocabulary sharded", POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How the processes of a run find each other.

    Explicit addresses are flags of the command, because they differ between hosts.
    """

    kind: str = setting(
        "auto",
        "environment in which processes find each other: TPU VM or pod slice (tpu), SLURM, "
        "Kubernetes; none: a single process",
        one_of("auto", "none", "tpu", "slurm", "kubernetes"),
    )
    initialization_timeout: int = setting(
        300, "seconds to wait for all processes at the start", SECONDS
    )
    heartbeat_timeout: int = setting(
        100, "seconds without a sign of life after which a process counts as lost", SECONDS
    )
    shutdown_timeout: int = setting(60, "seconds to wait for all processes at the end", SECONDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, how often and how reproducibly."""

    seed: int = setting(0, "seed of every random choice", SEED)
    steps: int = setting(480_000, "optimizer steps; 0: as epochs needs", AT_LEAST_0)
    epochs: float = setting(
        0.0,
        "with steps=0: how often each record of every stream is seen, at least; with weights, the "
        "mean over the stream's records",
        AT_LEAST_0,
    )
    min_steps: int = setting(0, "with steps=0: steps at least, for small data", AT_LEAST_0)
    start_from: str = setting(
        "",
        "workdir of a run or an import whose parameters this one starts with, or sample for the "
        "model in the package; empty: random",
    )
    accumulate: int = setting(1, "microbatches whose gradients are summed per step", POSITIVE)
    log_every: int = setting(
        100, "steps between log lines; -1: a hundred lines over the run", FOLLOWS_OR_POSITIVE
    )
    first_batch: int = setting(
        8, "rows of each stream that a new run draws as a picture; 0: none", AT_LEAST_0
    )
    evaluate_every: int = setting(
        5000,
        "steps between evaluations on held-out data; 0: never; -1: ten over the run",
        FOLLOWS_OR_AT_LEAST_0,
    )
    evaluate_batches: int = setting(
        16, "batches per stream of an evaluation during training; 0: all", AT_LEAST_0
    )
    checkpoint_every: int = setting(
        5000, "steps between checkpoints; -1: ten over the run", FOLLOWS_OR_POSITIVE
    )
    checkpoint_minutes: float = setting(
        0.0,
        "longest time between checkpoints in minutes; 0: by steps alone",
        AT_LEAST_0,
    )
    keep_last: int = setting(3, "newest checkpoints that are kept", POSITIVE)
    compilation_cache: str = setting(
        "auto", "folder for compiled steps; auto: in the user's cache folder; empty: no cache"
    )
    keep_every: int = setting(0, "steps whose multiples are kept as well; 0: none", AT_LEAST_0)
    stuck_minutes: float = setting(
        20.0,
        "time without a finished step after which the run shows where every thread is, and ends; "
        "six times as long for a start, compilation, evaluation and save; 0: never",
        AT_LEAST_0,
    )
    refused_in_a_row: int = setting(3, "refused updates in a row that end the run", POSITIVE)
    refused_share: float = setting(
        0.01, "a larger share of refused updates in the last 1,000 steps ends the run", SHARE
    )
    rollbacks: int = setting(
        0,
        "how often, over all starts, a diverged run goes back to its last good checkpoint and "
        "skips the records that it has seen since; the next time, it ends",
        AT_LEAST_0,
    )
    bad_records: float = setting(
        0.001,
        "rows whose record cannot be used get another record; a larger share of them in the last "
        "1,000 steps ends the run; 0: the first one does",
        Bound("in [0, 0.1]", lambda value: 0 <= value <= 0.1),
    )
    verify_shards: bool = setting(
        False,
        "at the start, compare the SHA-256 of every byte of every shard with the data set's "
        "description; otherwise sizes and both ends",
    )
