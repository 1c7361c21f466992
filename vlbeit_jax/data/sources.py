"""The prepared sets of a stream, opened and checked before anything is read from them."""

from collections.abc import Sequence

from vlbeit_jax.config.streams import StreamConfig, TextStreamConfig
from vlbeit_jax.data.source import VALIDATION, PreparedSet, open_sets_once
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


def open_sources(name: str, stream: StreamConfig, tokenizer: str = "") -> list[PreparedSet]:
    """Opens the prepared sets of a stream.

    Args:
      name: of the stream.
      stream: its sources, and the length of its texts.
      tokenizer: fingerprint of the text tokenizer.

    Raises:
      UsageError: a set is missing or of the wrong kind, or its rows were packed with another
        tokenizer or to another length.
    """
    sets = open_sets_once(stream.sources, *stream.kinds)
    for each in sets:
        if each.kind is Kind.TOKENS:
            assert isinstance(stream, TextStreamConfig), stream
            _require_packed_for(each, tokenizer, stream.text_length, f"task.{name}.text_length")
    return sets


def _require_packed_for(packed: PreparedSet, tokenizer: str, length: int, setting: str) -> None:
    again = "pack the texts again with python -m vlbeit_jax.prepare --kind=tokens"
    if packed.meta["text_tokenizer"] != tokenizer:
        raise UsageError(
            f"{packed.folder} was packed with text tokenizer {packed.meta['text_tokenizer']}, but "
            f"task.text_tokenizer is {tokenizer}; {again}"
        )
    if packed.meta["length"] != length:
        raise UsageError(
            f"{packed.folder} holds rows of {packed.meta['length']} word pieces, but "
            f"{setting}={length}; change the setting, or {again}"
        )


def require_validation(sets: Sequence[PreparedSet]) -> None:
    """Checks that every set has validation records.

    Raises:
      UsageError: one has none.
    """
    for each in sets:
        if not each.count(VALIDATION):
            raise UsageError(
                f"{each.folder} holds no validation records ({dict(each.meta['counts'])}, left "
                f"out: {each.meta.get('left_out') or 'none'}), which run.evaluate_every needs; "
                "prepare it again with a larger --validation_share, or set run.evaluate_every=0"
            )
