"""Dimension letters of every shape annotation, declared once.

| letter | meaning                              | at base size           |
|--------|--------------------------------------|------------------------|
| B      | batch                                | 2048 per stream        |
| L      | fused sequence length                | 197, 128 or 256        |
| N      | patches of an image                  | 196                    |
| P      | values of a patch (side * side * 3)  | 768                    |
| T      | word pieces of a text                | 128, in a pair 59      |
| M      | masked positions                     | 75                     |
| D      | width                                | 768                    |
| Q      | queries, keys and values, 3 D        | 2304                   |
| F      | FFN width                            | 3072                   |
| H, K   | attention heads, head width          | 12, 64                 |
| V      | prediction vocabulary                | 64000 (padded to 128s) |
| C, E   | codebook entries, codebook width     | 8192, 32               |
| A      | rows of any number                   |                        |
| G      | patches along a side                 | 14                     |
| I, O   | width before and after a linear map  |                        |
| S      | tokens of one segment                | 197 or 59              |
| Z      | blocks                               | 12                     |

Image sides are always given as ``height width``. A ``Tree`` is a pytree, of arrays or of what they
are like.
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Shaped, UInt, UInt8

__all__ = ["Array", "Bool", "Float", "Int", "Shaped", "Tree", "UInt", "UInt8"]

Tree = Any
