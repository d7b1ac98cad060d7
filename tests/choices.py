"""What networks choose: the frames that they keep, and which gates are open.

Rounding decides between near equals, and what follows differs by far more than
rounding does. Two ways to compute a network are therefore compared with the
same choices, and the choices by themselves.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.layers import mtconv, srtg
from mtnet_jax.ops import precision
from mtnet_jax.ops.frame_selection import triplet_scores


def gate_scores(a, b):
  """How far each clip is from being cycle consistent, below 0 where it is.

  The greatest difference, over frames and both ways, between the distance of a
  frame's soft nearest neighbor to its own frame and to the nearest other one.
  """

  def one_way(a, b):
    a, b = precision.widen(a), precision.widen(b)
    z = jax.nn.softmax(-jnp.sum((a[:, :, None] - b[:, None]) ** 2, -1), -1)
    soft = jnp.einsum('nti,nic->ntc', z, b)
    distances = jnp.sum((soft[:, :, None] - b[:, None]) ** 2, -1)  # n t i
    own = jnp.eye(a.shape[1], dtype=bool)[None]
    others = jnp.where(own, jnp.inf, distances).min(-1)
    return jnp.max(jnp.einsum('ntt->nt', distances) - others, axis=1)

  return jnp.maximum(one_way(a, b), one_way(b, a))


class Choice(NamedTuple):
  """What one layer chose for each clip.

  Attributes:
    made: `(n, k)` frames, or `(n,)` whether gates are open.
    scores: `(n, t)` of the frames, or `(n,)` of the gates, which decided.
  """

  made: Any
  scores: Any


@contextlib.contextmanager
def watch(held: Sequence[Any] | None = None) -> Iterator[list[Choice]]:
  """Notes each choice of a network that is traced below it, in order.

  Args:
    held: what another run chose. It takes effect in place of the network's own
      choices, which are noted all the same: so that each differs by itself,
      and not because an earlier one did.
  """
  choices = []

  def choosing(owner, attribute, score):
    choose = getattr(owner, attribute)

    def call(*args):
      choices.append(Choice(choose(*args), score(*args)))
      return held[len(choices) - 1] if held else choices[-1].made

    return mock.patch.object(owner, attribute, call)

  with (
    choosing(mtconv, 'select_frame_indices', triplet_scores),
    choosing(srtg, 'cycle_consistent', gate_scores),
    # Nothing comes out of a program within the program but what it returns.
    mock.patch.object(jax, 'jit', lambda function, **_: function),
  ):
    yield choices


def flips(wanted: Sequence[Choice], got: Sequence[Choice]) -> list[float]:
  """For each clip and layer that chose otherwise, the gap of wanted's scores.

  Of frames, the gap between those that changed places; of a gate, its distance
  from the border.
  """
  gaps = []
  for a, b in zip(wanted, got, strict=True):
    for mine, other, scores in zip(a.made, b.made, a.scores, strict=True):
      if np.array_equal(mine, other):
        continue
      if scores.ndim:
        gone, come = np.setdiff1d(mine, other), np.setdiff1d(other, mine)
        gaps.append(float(scores[come].max() - scores[gone].min()))
      else:
        gaps.append(float(abs(scores)))
  return gaps
