"""What a TPU chip or a GPU can do, from published tables and, where marked, from the compiler."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip of a generation (cloud.google.com/tpu/docs: system architecture of each).

    Attributes:
      name: as in a topology, "v5e" in "v5e:16x16".
      peak: bfloat16 operations a second.
      hbm_bytes: memory.
      hbm_rate: bytes a second from and to it.
      link_rate: bytes a second over one link, one direction.
      axes: of the torus; a chip has two links along each.
      cores: that share a chip's work; peak is of all of them.
      clock: cycles a second: peak over the operations a cycle that the compiler reckons with.
      calibrated: whether estimates on this chip have been held against anything; see docs/scale.md.
    """

    name: str
    peak: float
    hbm_bytes: int
    hbm_rate: float
    link_rate: float
    axes: int
    cores: int
    clock: float
    calibrated: bool = True


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            peak=275e12,
            hbm_bytes=32 * GIB,
            hbm_rate=1228e9,
            link_rate=45e9,
            axes=3,
            cores=2,
            clock=1.05e9,
        ),
        Chip(
            name="v5e",
            peak=197e12,
            hbm_bytes=16 * GIB,
            hbm_rate=819e9,
            link_rate=45e9,
            axes=2,
            cores=1,
            clock=1.503e9,
        ),
        Chip(
            name="v5p",
            peak=459e12,
            hbm_bytes=95 * GIB,
            hbm_rate=2765e9,
            link_rate=90e9,
            axes=3,
            cores=2,
            clock=1.751e9,
        ),
        Chip(
            name="v6e",
            peak=918e12,
            hbm_bytes=32 * GIB,
            hbm_rate=1640e9,
            link_rate=90e9,
            axes=2,
            cores=1,
            clock=1.751e9,
            calibrated=False,
        ),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One graphics card, from NVIDIA's data sheets and architecture white papers.

    A GeForce multiplies bfloat16 with sums in float32 at twice its float32 rate.

    Attributes:
      name: JAX's name of the device, without what follows it on some boards. Without a suffix, a
        data centre card is the SXM part.
      peak: dense bfloat16 operations a second with sums in float32. A data sheet that says "with
        sparsity" gives twice as much.
      gibibytes: memory.
      memory_rate: bytes a second from and to it.
    """

    name: str
    peak: float
    gibibytes: int
    memory_rate: float


GPUS = (
    Gpu(name="NVIDIA GeForce RTX 3070", peak=40.6e12, gibibytes=8, memory_rate=448e9),
    Gpu(name="NVIDIA GeForce RTX 4080", peak=97.5e12, gibibytes=16, memory_rate=717e9),
    Gpu(name="NVIDIA GeForce RTX 3090", peak=71.2e12, gibibytes=24, memory_rate=936e9),
    Gpu(name="NVIDIA L4", peak=121e12, gibibytes=24, memory_rate=300e9),
    Gpu(name="NVIDIA A10", peak=125e12, gibibytes=24, memory_rate=600e9),
    Gpu(name="NVIDIA GeForce RTX 4090", peak=165.2e12, gibibytes=24, memory_rate=1008e9),
    Gpu(name="NVIDIA A100", peak=312e12, gibibytes=80, memory_rate=2039e9),
    Gpu(name="NVIDIA H100", peak=989.4e12, gibibytes=80, memory_rate=3350e9),
    Gpu(name="NVIDIA H200", peak=989.4e12, gibibytes=141, memory_rate=4800e9),
)
# Peak bfloat16 operations per second, by JAX's name of a device.
DEVICE_PEAKS = {
    "TPU v4": CHIPS["v4"].peak,
    "TPU v5 lite": CHIPS["v5e"].peak,
    "TPU v5e": CHIPS["v5e"].peak,
    "TPU v5": CHIPS["v5p"].peak,
    "TPU v5p": CHIPS["v5p"].peak,
    "TPU v6 lite": CHIPS["v6e"].peak,
    "TPU v6e": CHIPS["v6e"].peak,
    "NVIDIA H100 PCIe": 756e12,
    **{gpu.name: gpu.peak for gpu in GPUS},
}


def device_peak(kind: str) -> float | None:
    """Returns bfloat16 operations per second of one device of a kind.

    None if they are not known, as for an NVL card, for a part of a card (MIG), and for a GeForce
    whose name goes on: a Ti, a SUPER or a laptop's part is another card.
    """
    if kind in DEVICE_PEAKS:
        return DEVICE_PEAKS[kind]
    known = [
        name
        for name in DEVICE_PEAKS
        if name.startswith("NVIDIA") and kind.startswith((f"{name} ", f"{name}-"))
    ]
    others = {"GeForce", "MIG", "NVL"} & {*kind.split()}
    return DEVICE_PEAKS[max(known, key=len)] if known and not others else None
