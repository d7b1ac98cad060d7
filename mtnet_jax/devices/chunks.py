"""Sends many clips through a network, a fixed number at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.typing import Array, UInt8


def map_in_chunks(
  function: Callable[[UInt8[Array, 'm t h w 3']], Any],
  clips: UInt8[np.ndarray, 'n t h w 3'],
  chunk: int,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Applies a function to clips in chunks of one shape: the last is padded.

  Args:
    function: a function of clips on the devices; gives an array, or a tree of
      them, with a row a clip.
    clips: RGB, 0 to 255; n may be 0.
    chunk: clips at once, at least 1; rounded up to m, a multiple of the
      devices.
    mesh: devices of this process.

  Returns:
    What the function gives, with n rows, in memory.
  """
  chunk = -(-chunk // mesh.size) * mesh.size
  chunks = max(1, -(-len(clips) // chunk))
  missing = chunks * chunk - len(clips)
  padded = np.pad(clips, [(0, missing)] + [(0, 0)] * 4)
  found = [
    function(mesh_lib.to_devices({'clips': part}, mesh)['clips'])
    for part in np.split(padded, chunks)
  ]
  return jax.tree.map(
    lambda *parts: np.concatenate(parts)[: len(clips)], *jax.device_get(found)
  )
