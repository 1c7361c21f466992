"""Names shared by data, models and objectives. Imports no library: loader workers use it."""

import enum


class Modality(enum.StrEnum):
    """What a token comes from; decides its embedding, its expert and its prediction head."""

    VISION = "vision"
    LANGUAGE = "language"


class Positions(enum.StrEnum):
    """How a token knows its place.

    ABSOLUTE: a learned table per modality, as in BEiT-3. RELATIVE: as in VLMo, each layer has one
    bias table for both modalities, and text embeddings are normalised; the image part is BEiT's.
    """

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


class Kind(enum.StrEnum):
    """What one record of a prepared data set holds.

    PAIRS: an image with its captions. TOKENS: texts packed into full rows. LABELLED_IMAGES and
    LABELLED_TEXTS: one class each. QUESTIONS: an image, a question and its answers. STATEMENTS: two
    images, and a statement that is true or false of both together. MASKS: an image, and the class
    of each pixel.
    """

    IMAGES = "images"
    PAIRS = "pairs"
    TEXTS = "texts"
    TOKENS = "tokens"
    LABELLED_IMAGES = "labelled_images"
    LABELLED_TEXTS = "labelled_texts"
    QUESTIONS = "questions"
    STATEMENTS = "statements"
    MASKS = "masks"

    @property
    def has_label(self) -> bool:
        """Whether each record belongs to a class."""
        return self in (Kind.LABELLED_IMAGES, Kind.LABELLED_TEXTS)


class Special(enum.IntEnum):
    """Word-piece ids that no text can produce; fixed for every text tokenizer."""

    PAD = 0
    UNKNOWN = 1
    CLS = 2
    SEP = 3
    MASK = 4


# One entry per run of tokens of one modality, in sequence order: ((VISION, 197), (LANGUAGE, 59)).
Layout = tuple[tuple[Modality, int], ...]
