"""Many clips through a network, so many at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mtnet_jax import state
from mtnet_jax.typing import Array, UInt8


def in_steps(
  function: Callable[[UInt8[Array, 'm t h w 3']], Any],
  clips: UInt8[np.ndarray, 'n t h w 3'],
  step: int,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Applies a function to clips in steps of one shape: the last is padded.

  Args:
    function: of clips on the devices; gives an array, or a tree of them, with a
      row a clip.
    clips: RGB, 0 to 255; n may be 0.
    step: clips at once, at least 1; rounded up to m, a multiple of the devices.
    mesh: devices of this process.

  Returns:
    What the function gives, with n rows, in memory.
  """
  step = -(-step // mesh.size) * mesh.size
  steps = max(1, -(-len(clips) // step))
  missing = steps * step - len(clips)
  padded = np.pad(clips, [(0, missing)] + [(0, 0)] * 4)
  found = [
    function(state.to_devices({'clips': part}, mesh)['clips'])
    for part in np.split(padded, steps)
  ]
  return jax.tree.map(
    lambda *parts: np.concatenate(parts)[: len(clips)], *jax.device_get(found)
  )
