"""Random numbers that are ours: a run in progress draws the same ones with any release of any library.

NumPy keeps the bits of its generators but not what ``Generator``'s methods make of them (NEP 19), and
Grain keeps neither. Here the bits come from SHAKE-128 (FIPS 202), and the few draws that are needed
are defined below, in integers and in float64 products that IEEE 754 rounds in one way.
"""

import hashlib
import struct

WORDS = 64
_BLOCK = struct.Struct(f"<{WORDS}Q")
_TO_UNIT = 2.0**-53


def framed(*parts: str | int | bytes) -> bytes:
    """Parts as bytes of which no other parts are made: each with its type and length in front."""
    found = bytearray()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        tag = b"b" if isinstance(part, bytes) else b"s" if isinstance(part, str) else b"i"
        found += tag + len(raw).to_bytes(8, "little") + raw
    return bytes(found)


class Draws:
    """An endless sequence of 64-bit words that its key decides, and draws made of them in order."""

    def __init__(self, *key: str | int | bytes):
        """The sequence of a key; other keys, for example neighbouring numbers, share nothing with it.

        Args:
          *key: anything that names what is drawn for, such as a seed, a stream and a number.
        """
        self._key = framed(*key)
        self._block = 0
        self._waiting: list[int] = []

    def word(self) -> int:
        """The next 64 bits."""
        if not self._waiting:
            block = self._key + self._block.to_bytes(8, "little")
            self._waiting = list(_BLOCK.unpack(hashlib.shake_128(block).digest(8 * WORDS)))
            self._waiting.reverse()  # Taken from the end.
            self._block += 1
        return self._waiting.pop()

    def uniform(self, low: float | int = 0.0, high: float | int = 1.0) -> float:
        """A number in [low, high), of 53 random bits."""
        return low + (high - low) * ((self.word() >> 11) * _TO_UNIT)

    def below(self, count: int) -> int:
        """One of 0, ..., ``count - 1``, each exactly as likely (Lemire's method).

        Raises:
          ValueError: ``count`` is not between 1 and 2^64.
        """
        if not 0 < count <= 2**64:
            raise ValueError(f"one of {count} numbers cannot be drawn; give 1 to 2^64")
        product = self.word() * count
        if product % 2**64 < count:
            uneven = 2**64 % count
            while product % 2**64 < uneven:
                product = self.word() * count
        return product >> 64

    def choose(self, count: int, taken: int) -> list[int]:
        """``taken`` different ones of 0, ..., ``count - 1``, in random order.

        Raises:
          ValueError: there are not as many.
        """
        if not 0 <= taken <= count:
            raise ValueError(f"{taken} different ones of {count} cannot be chosen")
        found = list(range(count))
        for place in range(taken):
            other = place + self.below(count - place)
            found[place], found[other] = found[other], found[place]
        return found[:taken]
