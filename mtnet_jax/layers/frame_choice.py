"""Chooses the frames that an MTConv's prolonged branch keeps.

The thesis scores activations by the temporal triplet cosine (5.6–5.7) and does
not say which. The other inputs serve to find out whether the choice matters.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtnet_jax.errors import UserError
from mtnet_jax.ops.frame_selection import (
  embedding_scores,
  lowest_frames,
  select_frame_indices,
)
from mtnet_jax.ops.mean import mean
from mtnet_jax.typing import Array, Float, Int

# The first three score the branch's own input, all that the layer reads, and
# the pixels. The last two are controls that do not depend on the clip.
SELECTION_INPUTS = ('branch', 'input', 'motion', 'random', 'every_second')


def check_selection_input(value: str) -> None:
  """Raises a UserError unless it is one of `SELECTION_INPUTS`."""
  if value not in SELECTION_INPUTS:
    raise UserError(
      f'Unknown `selection_input` (={value!r}) of MTConv. Choose one of '
      f'{", ".join(map(repr, SELECTION_INPUTS))}.'
    )


def choose_frames(
  selection_input: str,
  branch: Float[Array, 'n t h w c'],
  whole: Sequence[Float[Array, 'n t h w d']],
  stillness: Float[Array, 'n u'] | None = None,
  key: Array | None = None,
) -> Int[Array, 'n k']:
  """Returns the frames to keep, half of them.

  Args:
    selection_input: one of `SELECTION_INPUTS`. `'branch'` and `'input'` keep
      the frames with the lowest triplet cosine, of the first of what follows or
      of all of the second, side by side; `'motion'` those whose pixels move
      most; `'random'` any; `'every_second'` 0, 2, 4, ….
    branch: the input of the prolonged branch, down-sampled.
    whole: all that the layer reads, of the same frames.
    stillness: `still_scores` of the clip's pixels, for `'motion'`. Where the
      clip has more frames, several are averaged.
    key: random key of `'random'` in training. Without one, in evaluation, one
      choice is made for all clips, always the same.

  Returns:
    int32 indices of `max(1, t // 2)` frames, ascending. No gradient flows
    through them.
  """
  if selection_input == 'branch':
    return select_frame_indices(branch)
  n, t = branch.shape[:2]
  if selection_input == 'input':
    whole = jax.lax.stop_gradient(list(whole))
    scores = embedding_scores(jnp.concatenate([mean(x, 2) for x in whole], -1))
  elif selection_input == 'motion':
    assert stillness is not None
    scores = jax.image.resize(stillness, (n, t), 'linear')
  elif selection_input == 'random':
    clips = 1 if key is None else n
    key = jax.random.key(0) if key is None else key
    scores = jnp.broadcast_to(jax.random.uniform(key, (clips, t)), (n, t))
  else:
    assert selection_input == 'every_second', selection_input
    odd = jnp.arange(t) % 2.0
    scores = jnp.broadcast_to(odd, (n, t))
  return lowest_frames(scores)
