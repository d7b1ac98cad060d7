"""The arrays of a tree by name."""

from typing import Any

import jax


def leaf_paths(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by path, `params/stem/conv/kernel`."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in flat
  }


def differences(stored: Any, wanted: Any) -> list[str]:
  """Returns in words which arrays differ in shape, or are in one tree alone.

  Args:
    stored: the tree of a checkpoint.
    wanted: the tree of a network.
  """
  stored, wanted = (
    {path: tuple(leaf.shape) for path, leaf in leaf_paths(tree).items()}
    for tree in (stored, wanted)
  )
  both = sorted(stored.keys() & wanted.keys())
  return [
    *(
      f'{name} is {stored[name]}, this model has {wanted[name]}'
      for name in both
      if stored[name] != wanted[name]
    ),
    *(
      f'{name} {wanted[name]} is not in the checkpoint'
      for name in sorted(wanted.keys() - stored.keys())
    ),
    *(
      f'{name} {stored[name]} is not in this model'
      for name in sorted(stored.keys() - wanted.keys())
    ),
  ]
