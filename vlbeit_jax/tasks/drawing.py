"""Predictions that are pictures."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class DrawsPictures(Protocol):
    """A fine-tuned task whose predictions are written as pictures."""

    def pictures(
        self, record: Mapping[str, Any], prediction: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """Returns PNG files by name; a name that a prediction has takes the prediction's place.

        Args:
          record: of ``FineTuned.predict``.
          prediction: its prediction, which may hold arrays.
        """
        ...
