"""Random numbers that no library defines: a run in progress draws the same ones with every release.

NumPy promises to keep the bits of its generators, but not what ``Generator``'s methods make of them
(NEP 19). Grain promises neither. Here the bits come from SHAKE-128 (FIPS 202). The few draws that
we need are defined below, in integers and in float64 products, which IEEE 754 rounds in one way.
"""

import hashlib
import struct

WORDS = 64
_BLOCK = struct.Struct(f"<{WORDS}Q")
_TO_UNIT = 2.0**-53


def framed(*parts: str | int | bytes) -> bytes:
    """Encodes each part with its type and length, so that no two lists of parts are equal."""
    joined = bytearray()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        tag = b"b" if isinstance(part, bytes) else b"s" if isinstance(part, str) else b"i"
        joined += tag + len(raw).to_bytes(8, "little") + raw
    return bytes(joined)


class Draws:
    """An endless sequence of 64-bit words that a key determines, and draws from it."""

    def __init__(self, *key: str | int | bytes):
        """Starts the sequence of a key. Sequences of different keys are unrelated.

        Args:
          *key: names what is drawn, such as a seed, a stream and a number.
        """
        self._key = framed(*key)
        self._block = 0
        self._waiting: list[int] = []

    def word(self) -> int:
        """Returns the next 64 bits."""
        if not self._waiting:
            block = self._key + self._block.to_bytes(8, "little")
            self._waiting = list(_BLOCK.unpack(hashlib.shake_128(block).digest(8 * WORDS)))
            self._waiting.reverse()  # ``pop`` takes from the end.
            self._block += 1
        return self._waiting.pop()

    def uniform(self, low: float | int = 0.0, high: float | int = 1.0) -> float:
        """Returns a number in [low, high) from 53 random bits."""
        return low + (high - low) * ((self.word() >> 11) * _TO_UNIT)

    def below(self, count: int) -> int:
        """Returns one of 0, ..., ``count - 1``, all exactly equally likely (Lemire's method).

        Raises:
          ValueError: ``count`` is not between 1 and 2^64.
        """
        if not 0 < count <= 2**64:
            raise ValueError(f"cannot draw one of {count} numbers; give 1 to 2^64")
        product = self.word() * count
        if product % 2**64 < count:
            uneven = 2**64 % count
            while product % 2**64 < uneven:
                product = self.word() * count
        return product >> 64

    def choose(self, count: int, taken: int) -> list[int]:
        """Returns ``taken`` different numbers of 0, ..., ``count - 1``, in random order.

        Raises:
          ValueError: ``taken`` is not between 0 and ``count``.
        """
        if not 0 <= taken <= count:
            raise ValueError(f"cannot choose {taken} different numbers of {count}")
        numbers = list(range(count))
        for place in range(taken):
            other = place + self.below(count - place)
            numbers[place], numbers[other] = numbers[other], numbers[place]
        return numbers[:taken]
