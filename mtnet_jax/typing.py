"""Names for arrays and batches in annotations.

Axes are always in the order `n t h w c`: clips, frames, height, width,
channels. Functions that take arrays of jax take NumPy's as well.
"""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree, Real, UInt8

Array: TypeAlias = jax.Array | np.ndarray

__all__ = ['Array', 'Bool', 'Float', 'Int', 'PyTree', 'Real', 'UInt8']
