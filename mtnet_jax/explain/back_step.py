"""Steps back through a network's layers and residual connections (7.5)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mtnet_jax.explain.network_layers import (
  Importance,
  Step,
  score_convolutions,
  score_inputs,
  select_channels,
  sort_importance,
)

MODES = ('layer', 'feature')
WHOLE_SET = -1  # The source of what a layer's kernels found together.


@dataclasses.dataclass(frozen=True)
class Edge:
  """An edge from a channel to one below it.

  Attributes:
    level: the source's level, 0 for the last activations.
    source: the source's channel, or `WHOLE_SET`.
    target: channel of level `level + span`.
    importance: the importance of the target to the source, in [0, 1].
    via: `'kernel'`, or `'residual'` where it is a residual connection's.
    span: levels that it goes down: 1, or the layers of a residual block.
  """

  level: int
  source: int
  target: int
  importance: float
  via: str = 'kernel'
  span: int = 1


def step_back(
  start: Importance, steps: Sequence[Step], mode: str, threshold: float
) -> tuple[list[Importance], list[Edge]]:
  """Steps back through the layers and the residual connections around them.

  A residual connection passes the channels kept at a block's output to the
  block's input (7.5.4): unchanged if it is the identity, through its kernels if
  it is a projection. A channel that both branches keep has the larger
  importance, and so has one that several features keep.

  Args:
    start: the kept channels of level 0.
    steps: the steps from the last layer down.
    mode: one of `MODES`.
    threshold: the threshold θ.

  Returns:
    The kept channels of each level, `len(steps) + 1`, and all edges.
  """
  levels = [dict(start)] + [{} for _ in steps]
  edges = []
  for k, step in enumerate(steps):
    levels[k] = sort_importance(levels[k])
    found = []
    for source, chosen in _groups(levels[k], mode):
      scores = score_inputs(step, chosen, threshold)
      found += _edges(k, source, scores, threshold)
    if step.layer.block and k + step.layer.block <= len(steps):
      found += _residual_edges(k, levels[k], steps, mode, threshold)
    for edge in found:
      below = levels[k + edge.span]
      old = below.get(edge.target, 0.0)
      below[edge.target] = max(old, edge.importance)
    edges += found
  return [*levels[:-1], sort_importance(levels[-1])], edges


def _groups(kept, mode):
  """Yields kernels that step back together, and the source of their edges."""
  if mode == 'feature':
    return [(j, np.array([j])) for j in kept]
  return [(WHOLE_SET, np.array(sorted(kept)))] if kept else []


def _edges(level, source, scores, threshold, via='kernel', span=1):
  return [
    Edge(level, source, target, importance, via, span)
    for target, importance in select_channels(scores, threshold).items()
  ]


def _residual_edges(level, kept, steps, mode, threshold):
  span, shortcut = steps[level].layer.block, steps[level].shortcut
  if not shortcut:
    # Channels of zeros that the connection adds have nothing below them.
    below = len(steps[level + span - 1].inputs)
    return [
      Edge(level, j, j, a, 'residual', span)
      for j, a in kept.items()
      if j < below
    ]
  edges = []
  for source, chosen in _groups(kept, mode):
    scores = score_convolutions(shortcut, chosen, threshold)
    edges += _edges(level, source, scores, threshold, 'residual', span)
  return edges
