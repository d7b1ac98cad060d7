"""Finds the kernels of a layer, inflated to the full width of its input."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtnet_jax.typing import Array, Bool, Float, Real

_MTCONV = ('local', 'prolonged', 'pointwise')


def find_kernels(params: Mapping[str, Any], path: str) -> dict[str, Array]:
  """Returns the kernels `(kt, kh, kw, c, f)` of a layer by their branch.

  A plain convolution has `local` alone, as an MTConv without a prolonged branch
  has; the others are `prolonged` and `pointwise`.

  Args:
    params: the network's parameters.
    path: the path of the layer, or of a shortcut.
  """
  for name in path.split('/'):
    params = params[name]
  params = params.get('conv', params)
  if 'kernel' in params:
    return {'local': params['kernel']}
  return {name: params[name]['kernel'] for name in _MTCONV if name in params}


@dataclasses.dataclass(frozen=True)
class Kernels:
  """The kernels of one convolution, pooled over space and time (7.5).

  Attributes:
    weights: means of the kernels; zeros where they do not read (7.5.4).
    reads: the input channels that each kernel has.
  """

  weights: Real[np.ndarray, 'c f']
  reads: Bool[np.ndarray, 'c f']


def inflate(means: Real[np.ndarray, 'r f'], num_inputs: int) -> Kernels:
  """Returns kernels of the full width of their input.

  Args:
    means: the means of the kernels over space and time; r is 1 where the
      convolution is channel-separated, the inputs of a group where it is
      grouped, else all inputs.
    num_inputs: channels of the layer's input.
  """
  if len(means) == num_inputs:
    return Kernels(means, np.ones(means.shape, bool))
  count, groups = means.shape[1], num_inputs // len(means)
  if len(means) > 1 or count > num_inputs:
    assert not (num_inputs % len(means) or count % groups), means.shape
    block = np.ones((len(means), count // groups), bool)
    reads = np.kron(np.eye(groups, dtype=bool), block)
    return Kernels(np.where(reads, np.tile(means, (groups, 1)), 0), reads)
  reads = np.eye(num_inputs, count, dtype=bool)
  return Kernels(np.where(reads, means, 0), reads)


def inflate_branches(
  means: Mapping[str, Float[np.ndarray, 'r f']], num_inputs: int
) -> dict[str, Kernels]:
  """Returns the full-width kernels of a layer's branches.

  Args:
    means: the means of its kernels over space and time, by `find_kernels`'s
      names.
    num_inputs: channels of the layer's input.
  """
  num_local = means['local'].shape[-1]
  if 'prolonged' not in means:
    return {'local': inflate(means['local'], num_inputs)}
  read = [len(means[name]) for name in ('local', 'prolonged')]
  if read[0] == num_inputs:
    first = second = slice(0, num_inputs)
  else:
    # If inputs are split, each branch reads its share; in a channel-separated
    # or grouped layer it reads as many channels as it makes.
    share = read[0] if sum(read) == num_inputs else num_local
    first, second = slice(0, share), slice(share, num_inputs)
  return {
    'local': _inflate_share(means['local'], num_inputs, first),
    'prolonged': _inflate_share(means['prolonged'], num_inputs, second),
    'pointwise': inflate(means['pointwise'], num_local),
  }


def _inflate_share(means, num_inputs, share):
  """Inflates kernels that read some of the inputs to the width of all."""
  own = inflate(means, share.stop - share.start)
  shape = (num_inputs, means.shape[1])
  weights, reads = np.zeros(shape, means.dtype), np.zeros(shape, bool)
  weights[share], reads[share] = own.weights, own.reads
  return Kernels(weights, reads)
