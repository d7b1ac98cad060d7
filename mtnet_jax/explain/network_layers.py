"""Lists the layers of a network as a chain, and steps back through one.

A layer is one convolution with the BN, the activation and the gates after it,
which all keep the channels' identity, one MTConv, or one block of branches side
by side, as I3D has them; a (2+1)D unit's two convolutions are two layers. BN
and activation before a convolution end the layer before. Names are those of the
parameters: the chain of a checkpoint follows from its parameters alone.

The step back is the thesis's 7.5.2.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.errors import UserError
from mtnet_jax.explain.layer_kernels import Kernels
from mtnet_jax.typing import Float, Int, Real

_STEMS = ('stem', 'stem_spatial', 'stem_temporal')
_BLOCK = re.compile(r'stage_(\d+)_block_(\d+)')
_IN_BLOCK = (
  *('expand', 'separated', 'project'),
  *('conv_1', 'mix', 'temporal', 'conv_2', 'conv_3'),
)
_BRANCHES = (
  ('branch_1',),
  *((f'branch_{i}_reduce', f'branch_{i}') for i in (2, 3)),
  ('branch_4',),
)

Importance = Mapping[int, float]


@dataclasses.dataclass(frozen=True)
class Layer:
  """A layer, and the residual connection that ends with it.

  Attributes:
    path: the path of its module, `stage_4_block_7/project` for instance.
    block: layers of the residual block whose last it is; 0: it is none's last.
    shortcut: paths of the convolutions of that block's residual connection, one
      after the other; (): the connection is the identity.
    branches: paths of the convolutions of each branch, from the layer's input
      on, in the order of the channels that they give; (): it has none.
  """

  path: str
  block: int = 0
  shortcut: tuple[str, ...] = ()
  branches: tuple[tuple[str, ...], ...] = ()

  @property
  def convolutions(self) -> tuple[str, ...]:
    """Paths of the layer's own convolutions, or of its MTConv."""
    return tuple(p for paths in self.branches for p in paths) or (self.path,)


def layer_chain(params: Mapping[str, Any]) -> tuple[Layer, ...]:
  """Returns the layers from the stem to the last activations.

  The projections of residual connections are not among them; they are the
  `shortcut` of the layer that ends their block. A network of two pathways has
  no chain: ().

  Args:
    params: the parameters of a network of `mtnet_jax.models`, or their shapes.
  """
  if 'fast_stem' in params:
    return ()
  blocks = sorted(
    (name for name in params if _BLOCK.fullmatch(name)),
    key=lambda name: [int(n) for n in _BLOCK.fullmatch(name).groups()],
  )
  chain = []
  for name in (*_STEMS, *blocks, 'head'):
    if name in blocks:
      chain += _block_layers(name, params[name])
    elif name in params:
      chain += _split(name, params[name])
  return tuple(chain)


def _block_layers(name, params):
  if 'branch_1' in params:
    branches = tuple(
      tuple(f'{name}/{part}' for part in parts) for parts in _BRANCHES
    )
    return [Layer(name, branches=branches)]
  if 'cubic' in params:  # one after the other, without a residual connection
    return [Layer(f'{name}/reduce'), Layer(f'{name}/cubic')]
  if 'multiplex_1' in params:
    return _pre_activated_layers(name, params)
  parts = [part for part in _IN_BLOCK if part in params]
  layers = [
    layer for part in parts for layer in _split(f'{name}/{part}', params[part])
  ]
  shortcut = ()
  if 'shortcut' in params:
    projection = _split(f'{name}/shortcut', params['shortcut'])
    shortcut = tuple(layer.path for layer in projection)
  last = Layer(layers[-1].path, len(layers), shortcut)
  return [*layers[:-1], last]


def _pre_activated_layers(name, params):
  """Lists layers with residual connections around two, and around all four.

  Paths are those of the convolutions, which see what BN and ReLU have left.
  """
  shortcut = (f'{name}/shortcut/conv',) if 'shortcut' in params else ()
  return [
    Layer(f'{name}/multiplex_1/conv'),
    Layer(f'{name}/multiplex_2/conv', 2),
    Layer(f'{name}/conv_1/conv'),
    Layer(f'{name}/conv_2/conv', 4, shortcut),
  ]


def _split(path, params):
  """Returns one layer, or the two of a (2+1)D unit."""
  if 'spatial' in params:
    return [Layer(f'{path}/spatial'), Layer(f'{path}/temporal')]
  return [Layer(path)]


def count_steps(chain: Sequence[Layer], layers: int | str) -> int:
  """Returns the number of steps back, at most one less than layers.

  Args:
    chain: the layers from the last to the first.
    layers: the number of steps, or the path of the layer that they lead to.

  Raises:
    UserError: less than one step, or no such layer.
  """
  paths = [layer.path for layer in chain]
  if isinstance(layers, str):
    if layers in paths:
      return paths.index(layers)
    near = difflib.get_close_matches(layers, paths, n=3)
    hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
    raise UserError(
      f'The network has no layer {layers!r}.{hint} From the last to the first '
      f'they are {", ".join(paths)}.'
    )
  if layers < 1:
    raise UserError(
      f'`layers` (={layers}) must be at least 1 step back; this network has up '
      f'to {len(chain) - 1}.'
    )
  return min(layers, len(chain) - 1)


class Convolution(NamedTuple):
  """A convolution without a layer of its own, pooled over space and time.

  Attributes:
    kernels: the convolution's kernels.
    inputs: means of what it reads, `(c,)`.
  """

  kernels: Kernels
  inputs: Real[np.ndarray, ' c']


class Step(NamedTuple):
  """The inputs of a step back through one layer, pooled over space and time.

  Attributes:
    layer: the layer.
    kernels: the layer's kernels by branch, see `layer_kernels.find_kernels`; {}
      where there are `branches`.
    inputs: means of what it reads, `(c,)`.
    outputs: means of what it makes, before any gate or residual sum, `(f,)`.
    shortcut: the convolutions of the residual connection of the block that ends
      with it, see `Layer`.
    branches: the convolutions of each of its branches, see `Layer`.
  """

  layer: Layer
  kernels: Mapping[str, Kernels]
  inputs: Real[np.ndarray, ' c']
  outputs: Real[np.ndarray, ' f']
  shortcut: tuple[Convolution, ...] = ()
  branches: tuple[tuple[Convolution, ...], ...] = ()


def score_inputs(
  step: Step, chosen: Int[np.ndarray, ' k'], threshold: float
) -> Float[np.ndarray, ' c']:
  """Returns the importance of a layer's inputs to the mean of some kernels.

  The product of the pooled inputs and kernels (7.4), normalized. In an MTConv
  the chosen channels of the local and of the prolonged branch are two groups,
  averaged by their sizes; the prolonged group is the average of two routes:
  through its own kernels, and through the point-wise term, the channels of the
  local branch that this keeps, and their kernels. A route that keeps nothing
  adds nothing. Pooled inputs stand for those of the prolonged branch, which are
  the same at half the size. Branches side by side are groups too, each with one
  route: where it has two convolutions, through those channels between them that
  the second one keeps.

  Args:
    step: the layer.
    chosen: output channels, at least one.
    threshold: θ, of the channels kept within the layer.

  Returns:
    In [0, 1]; NaN where no chosen kernel reads the input.
  """
  if step.branches:
    return _average(list(_branch_routes(step, chosen, threshold)))
  num_local = step.kernels['local'].weights.shape[1]
  local, prolonged = chosen[chosen < num_local], chosen[chosen >= num_local]
  routes = []  # weight, scores
  if local.size:
    scores = multiply(step.kernels['local'], step.inputs, local)
    routes.append((local.size, normalize(scores)))
  if prolonged.size:
    for scores in _prolonged_routes(step, prolonged - num_local, threshold):
      routes.append((prolonged.size / 2, normalize(scores)))
  return _average(routes)


def _average(routes):
  """Averages routes' scores by their weights, and normalizes them."""
  weights = np.array([weight for weight, _ in routes])
  scores = np.stack([scores for _, scores in routes])
  mean = weights @ np.nan_to_num(scores) / weights.sum()
  return normalize(np.where(np.isnan(scores).all(axis=0), np.nan, mean))


def _branch_routes(step, chosen, threshold):
  """Yields, for branches with chosen channels, their number and the scores."""
  first = 0
  for convolutions in step.branches:
    count = convolutions[-1].kernels.weights.shape[1]
    own = chosen[(first <= chosen) & (chosen < first + count)] - first
    first += count
    if own.size:
      yield own.size, score_convolutions(convolutions, own, threshold)


def score_convolutions(
  convolutions: Sequence[Convolution],
  chosen: Int[np.ndarray, ' k'],
  threshold: float,
) -> Float[np.ndarray, ' c']:
  """Returns the importance of inputs to the mean of some kernels, in [0, 1].

  For convolutions in sequence, `chosen` are outputs of the last; between them
  channels are kept by θ. NaN: nothing is, or no kernel reads the input.
  """
  *before, last = convolutions
  scores = normalize(multiply(*last, chosen))
  for convolution in reversed(before):
    via = np.array(sorted(select_channels(scores, threshold)), int)
    if not via.size:
      return np.full(len(convolutions[0].inputs), np.nan)
    scores = normalize(multiply(*convolution, via))
  return scores


def _prolonged_routes(step, chosen, threshold):
  kernels, inputs = step.kernels, step.inputs
  direct = multiply(kernels['prolonged'], inputs, chosen)
  num_local = kernels['local'].weights.shape[1]
  found = multiply(kernels['pointwise'], step.outputs[:num_local], chosen)
  via = np.array(sorted(select_channels(normalize(found), threshold)), int)
  if not via.size:
    return direct, np.full_like(direct, np.nan)
  return direct, multiply(kernels['local'], inputs, via)


def multiply(
  kernels: Kernels,
  means: Real[np.ndarray, ' c'],
  chosen: Int[np.ndarray, ' k'],
) -> Float[np.ndarray, ' c']:
  """Returns pooled inputs times the mean of the chosen pooled kernels (7.4).

  float64; NaN where none of the chosen kernels reads the input.
  """
  weights = kernels.weights[:, chosen].astype(np.float64).mean(axis=1)
  reads = kernels.reads[:, chosen].any(axis=1)
  return np.where(reads, weights * means, np.nan)


def normalize(scores: Float[np.ndarray, ' c']) -> Float[np.ndarray, ' c']:
  """Returns scores in [0, 1] by their minimum and maximum.

  Args:
    scores: float64; NaN where a channel is no candidate, which stays so. A
      single candidate gets 1: there is no choice. Several equal ones get 0:
      none stands out.
  """
  candidates = scores[~np.isnan(scores)]
  if candidates.size == 0:
    return scores
  low, high = candidates.min(), candidates.max()
  if low < high:
    return (scores - low) / (high - low)
  return np.where(np.isnan(scores), np.nan, float(candidates.size == 1))


def select_channels(
  scores: Float[np.ndarray, ' c'], threshold: float
) -> Importance:
  """Returns the channels whose sigmoid exceeds θ, the most important first.

  Args:
    scores: importances in [0, 1]; NaN: no candidate.
    threshold: the threshold θ.
  """
  kept = np.flatnonzero(1 / (1 + np.exp(-scores)) > threshold)
  return sort_importance({int(j): float(scores[j]) for j in kept})


def sort_importance(importance: Importance) -> dict[int, float]:
  """Returns importances, the largest first, among equals the lower channel."""
  return dict(sorted(importance.items(), key=lambda item: (-item[1], item[0])))
