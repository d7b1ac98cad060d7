"""Array aliases and what a batch is.

Axes are always in the order `n t h w c`: clips, frames, height, width,
channels.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

Batch = Mapping[str, np.ndarray]

__all__ = ['Array', 'Batch', 'Bool', 'Float', 'Int', 'PyTree', 'UInt8']
