"""Settings of fine-tuning that several tasks share: labelled examples and their augmentation."""

import dataclasses
from collections.abc import Iterable

from vlbeit_jax.config.schema import AT_LEAST_0, PART, POSITIVE, SHARE, one_of, setting
from vlbeit_jax.config.streams import StreamConfig

RAND_AUGMENT = (
    "RandAugment: light (2 of 10 operations at 7), strong (rand-m9-mstd0.5-inc1)",
    one_of("none", "light", "strong"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImagesConfig(StreamConfig):
    """Images with a class. Defaults are BEiT's and BEiT-3's recipe for ImageNet."""

    batch_size: int = setting(1024, "images per step, over all hosts", POSITIVE)
    crop_scale: float = setting(0.08, "smallest area of the random crop, share of the image", SHARE)
    flip: float = setting(0.5, "probability of a horizontal flip", SHARE)
    rand_augment: str = setting("strong", *RAND_AUGMENT)
    erase: float = setting(0.25, "probability that a random box becomes noise", SHARE)
    mixup: float = setting(0.8, "parameter of mixup's Beta distribution; 0: no mixup", AT_LEAST_0)
    cutmix: float = setting(
        1.0, "parameter of cutmix's Beta distribution; 0: no cutmix", AT_LEAST_0
    )
    view: str = setting(
        "crop",
        "evaluation sees the centre (crop) or the whole image as a square (squash)",
        one_of("crop", "squash"),
    )
    crop_share: float = setting(
        1.0, "side of the centre crop, share of the resized image's shorter side", PART
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledTextsConfig(StreamConfig):
    """Texts with a class."""

    batch_size: int = setting(32, "texts per step, over all hosts", POSITIVE)
    text_length: int = setting(128, "word pieces of a text with its specials", POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedStreamConfig(StreamConfig):
    """Images with a question, a caption or a statement, both seen as they are."""

    text_length: int = setting(64, "word pieces of a text with its specials", POSITIVE)
    crop_scale: float = setting(0.5, "smallest area of the random crop, share of the image", SHARE)
    flip: float = setting(
        0.5, "probability of a horizontal flip, unless the text names a side", SHARE
    )
    rand_augment: str = setting("light", *RAND_AUGMENT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionStreamConfig(PairedStreamConfig):
    """Images with a caption, most of whose pieces are masked. Defaults are those of BEiT-3."""

    batch_size: int = setting(256, "images with a caption per step, over all hosts", POSITIVE)
    text_length: int = setting(
        32, "word pieces of a caption with its specials; longer ones are cut", POSITIVE
    )
    masked_text: float = setting(0.7, "masked share of a caption's word pieces", PART)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MasksConfig(StreamConfig):
    """Images with the class of each pixel. Defaults are BEiT's recipe for ADE20K."""

    batch_size: int = setting(16, "images per step, over all hosts", POSITIVE)
    smallest_scale: float = setting(
        0.5, "smallest random scale; at 1, the shorter side becomes image_size", POSITIVE
    )
    largest_scale: float = setting(2.0, "largest random scale", POSITIVE)
    one_class: float = setting(
        0.75, "a crop in which one class has a larger share is drawn again, up to ten times", PART
    )
    flip: float = setting(0.5, "probability of a horizontal flip", SHARE)
    photometric: bool = setting(True, "change brightness, contrast, saturation and hue")
    view: str = setting(
        "slide",
        "evaluation lays windows over the image (slide), or sees all of it as a square (whole)",
        one_of("slide", "whole"),
    )
    stride: int = setting(
        0, "pixels from a window to the next; 0: two thirds of image_size", AT_LEAST_0
    )

    def problems(self) -> Iterable[str]:
        """Returns what is wrong between settings; each text begins with a setting's name."""
        if self.largest_scale < self.smallest_scale:
            yield (
                f"largest_scale={self.largest_scale:g} must not be below "
                f"smallest_scale={self.smallest_scale:g}"
            )
