"""What lies in a checkpoint, read without the project's code."""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp


def stored_leaves(workdir, step) -> dict[str, np.ndarray]:
  """Every array of a checkpoint, by name."""
  leaves = {}
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for item in ('variables', 'optimizer'):
    path = pathlib.Path(workdir).absolute() / f'checkpoints/{step}/{item}'
    with jax.enable_x64(True), ocp.StandardCheckpointer() as checkpointer:
      # It may have been written on more devices than there are here.
      target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=here
        ),
        checkpointer.metadata(path).item_metadata.tree,
      )
      tree = checkpointer.restore(path, target)
    for name, leaf in jax.tree_util.tree_leaves_with_path(tree):
      leaves[item + jax.tree_util.keystr(name)] = np.asarray(leaf)
  return leaves


def stored_bytes(workdir, step) -> dict[str, bytes]:
  """The bytes of every array of a checkpoint, by name."""
  leaves = stored_leaves(workdir, step)
  return {name: leaf.tobytes() for name, leaf in leaves.items()}
