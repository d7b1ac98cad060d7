"""The calls of every operation that its forms are tested with."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import (
  activation,
  adaptive_kernel,
  batch_norm,
  channels,
  conv,
  fork,
  frame_selection,
  grouped_conv,
  max_pool,
  mean,
  recurrence,
  separated_conv,
  soft_pool,
  temporal_shift,
  up_sample,
)
from tests.arrays import random_clips

# Vectors of a kernel have 4, 8 or 16 floats: all rests of them, and tiles.
CHANNELS = (1, 3, 4, 7, 8, 9, 16, 20, 31, 33)
OF_ALL = (3, 20)


class Case(NamedTuple):
  """One call of an operation.

  Attributes:
    function: a function of arrays.
    arrays: what it is called with: float32, and integers, of which there are
      no gradients.
    of_all: not for the kernels in C++ alone.
  """

  function: Callable[..., Any]
  arrays: tuple[np.ndarray, ...]
  of_all: bool = True

  def differentiable(self, arrays):
    """The function of the arrays that are floats, and these."""
    floats = [
      i for i, a in enumerate(arrays) if jnp.issubdtype(a.dtype, jnp.floating)
    ]

    def function(*given):
      every = list(arrays)
      for i, a in zip(floats, given, strict=True):
        every[i] = a
      return self.function(*every)

    return function, [arrays[i] for i in floats]


def separated(volume, strides, size, channels=CHANNELS):
  function = functools.partial(
    separated_conv.channel_separated_conv3d, strides=strides
  )
  few = channels if len(channels) == 1 else OF_ALL
  return [
    Case(
      function,
      (random_clips(2, *size, c), random_clips(*volume, 1, c, seed=1)),
      c in few,
    )
    for c in channels
  ]


def dense(size, volume, strides):
  c = size[-1]
  function = functools.partial(conv.conv3d, strides=strides)
  kernel = random_clips(*volume, c, 4, seed=1) / np.sqrt(np.prod(volume) * c)
  return [Case(function, (random_clips(*size), np.float32(kernel)))]


def grouped(size, volume, groups, features, strides=(1, 1, 1), of_all=True):
  function = functools.partial(grouped_conv.grouped_conv3d, strides=strides)
  d = size[-1] // groups
  kernel = random_clips(*volume, d, features, seed=1)
  kernel = np.float32(kernel / np.sqrt(np.prod(volume) * d))
  return [Case(function, (random_clips(*size), kernel), of_all)]


def pools(size, frames=None, channels=CHANNELS):
  more = () if frames is None else (np.array(frames, np.int32),)
  return [
    Case(
      soft_pool.soft_pool_with_residual,
      (5 * random_clips(2, *size, c), *more),
      c in OF_ALL,
    )
    for c in channels
  ]


def scale(first, function):
  shape = (2, 3, 4, 5, 21)
  gains = (*shape[:first], *[1] * (4 - first), 21)

  def run(x, gain, offset=None):
    return activation.scale_and_activate(x, gain, offset, function, x.dtype)

  arrays = [
    random_clips(*s, seed=i) for i, s in enumerate((shape, gains, gains))
  ]
  return [Case(run, tuple(arrays)), Case(run, tuple(arrays[:2]))]


def norm(function):
  def run(x, scale, bias):
    return batch_norm.normalize(x, scale, bias, scale, 1e-3, function, x.dtype)

  return [
    Case(
      run,
      (
        2 + random_clips(2, 2, 3, 2, 5, c),
        random_clips(c, seed=1),
        random_clips(c, seed=2),
      ),
      c in OF_ALL,
    )
    for c in CHANNELS
  ]


def norm_of_odd_groups(function):
  """Three clips a group: two side by side would be of two groups."""

  def run(x, scale, bias):
    return batch_norm.normalize(x, scale, bias, scale, 1e-3, function, x.dtype)

  arrays = (
    random_clips(2, 3, 2, 2, 3, 5),
    *(random_clips(5, seed=i) for i in (1, 2)),
  )
  return [Case(run, arrays)]


def recur(cell, h, n, reset_after=False):
  row = recurrence.find_cell(cell, reset_after)
  width = sum(row.gates) * h
  names = row.vectors

  def run(inputs, kernel, *vectors):
    vectors = dict(zip(names, vectors, strict=True))
    return recurrence.recur(row, inputs, kernel, vectors)

  arrays = (random_clips(4, n, width), random_clips(h, width, seed=1) / 3)
  arrays += tuple(random_clips(h, seed=i) for i in range(len(names)))
  return [Case(run, arrays, of_all=(h, n) == (5, 3))]


def plain(function, *arrays):
  return [Case(function, arrays)]


OPERATIONS = {
  'separated_3x3x3': [
    *separated((3, 3, 3), (1, 1, 1), (4, 5, 6)),
    *separated((3, 3, 3), (1, 1, 1), (1, 1, 1), (5,)),
  ],
  'separated_strided': separated((3, 3, 3), (1, 2, 2), (3, 7, 5)),
  'separated_strided_in_time': separated((3, 3, 3), (2, 2, 2), (5, 4, 3)),
  'separated_1x3x3': separated((1, 3, 3), (1, 1, 1), (2, 4, 8)),
  'separated_5x1x1': separated((5, 1, 1), (1, 1, 1), (6, 3, 2)),
  # More frames than one sum takes, than the parts of a kernel's gradient.
  'separated_of_many_frames': separated((3, 3, 3), (1, 1, 1), (33, 3, 4), (5,)),
  'separated_that_kernels_leave_to_xla': [
    *separated((3, 3, 5), (1, 1, 1), (2, 3, 6), (4,)),
    *separated((3, 3, 1), (1, 1, 2), (2, 3, 6), (4,)),
    *separated((2, 3, 4), (1, 3, 2), (4, 5, 7), (2,)),  # even, long strides
  ],
  'dense': [
    *dense((2, 5, 7, 5, 3), (1, 1, 1), (1, 2, 2)),
    *dense((2, 5, 7, 5, 3), (3, 3, 3), (1, 2, 2)),  # frames side by side
    *dense((2, 5, 7, 5, 17), (3, 3, 3), (2, 2, 2)),  # frame by frame
    *dense((2, 5, 9, 10, 17), (3, 3, 3), (1, 1, 1)),  # as Eigen convolves
    *dense((2, 5, 7, 5, 17), (3, 1, 1), (2, 1, 1)),
    *dense((2, 5, 7, 5, 3), (1, 3, 3), (1, 2, 2)),  # windows copied out
    *dense((2, 5, 7, 5, 3), (3, 7, 7), (1, 2, 2)),
    *dense((1, 1, 9, 8, 17), (3, 3, 3), (2, 1, 2)),  # outer frames idle
  ],
  'grouped': [
    *grouped((2, 3, 5, 11, 32), (3, 3, 3), 8, 32),  # registers are shared
    *grouped((2, 3, 6, 4, 12), (3, 3, 3), 2, 24, (1, 2, 2)),
    *grouped((1, 5, 5, 9, 32), (3, 3, 3), 8, 32, (2, 2, 2)),
    *grouped((1, 4, 7, 6, 4), (1, 3, 3), 4, 24),
    *grouped((1, 3, 2, 13, 10), (3, 1, 1), 2, 18, (2, 1, 1), of_all=False),
    *grouped((1, 2, 3, 14, 36), (3, 3, 3), 2, 72, of_all=False),
    *grouped((1, 2, 3, 7, 34), (3, 3, 3), 2, 34, (1, 2, 2), of_all=False),
    *grouped((1, 3, 9, 10, 40), (3, 3, 3), 2, 16),  # larger groups, and maps
  ],
  'grouped_that_kernels_leave_to_xla': [
    *grouped((2, 3, 5, 6, 6), (3, 3, 3), 3, 12),  # fewer than a register's
    *grouped((1, 4, 5, 7, 12), (2, 3, 4), 3, 24, (1, 3, 2)),
  ],
  'soft_pool': [
    *pools((3, 4, 6)),
    *pools((2, 5, 7)),
    *pools((1, 1, 3), None, (3,)),
  ],
  'soft_pool_of_some_frames': pools((5, 3, 4), [[0, 2], [1, 4]]),
  'soft_pool_windows_and_gradients': [
    Case(
      functools.partial(soft_pool.soft_pool, gradient=gradient, window=window),
      (5 * random_clips(2, 3, 5, 4, 3),),
    )
    for gradient in ('weights', 'exact')
    for window in ((1, 2, 2), (2, 2, 2))
  ],
  'up_sample': [
    Case(
      functools.partial(up_sample.up_sample, shape=new),
      (random_clips(2, *old, c),),
    )
    for old, new in (
      ((2, 3, 4), (4, 6, 8)),
      ((2, 3, 4), (5, 5, 7)),
      ((1, 1, 1), (3, 2, 1)),
    )
    for c in (1, 7, 20)
  ],
  'mean': [
    Case(
      functools.partial(mean.mean, first=first),
      (random_clips(2, 3, 20, 31, c),),
      c in OF_ALL,
    )
    for c in CHANNELS
    for first in (1, 2)
  ],
  'norm': norm(None) + norm_of_odd_groups(None),
  'norm_relu': norm(activation.relu),
  'norm_swish': norm(activation.swish),
  'scale': [*scale(1, None), *scale(2, None)],
  'scale_relu': [*scale(1, activation.relu), *scale(2, activation.relu)],
  'scale_swish': scale(1, activation.swish),
  'relu': plain(activation.relu, random_clips(3, 5, seed=3)),
  'add_and_rectify': plain(
    activation.add_and_rectify,
    random_clips(2, 3, 2, 4, 5),
    random_clips(2, 3, 2, 4, 5, seed=1),
  ),
  'fork': plain(fork.fork, random_clips(2, 3, 2, 4, 5)),
  'split': plain(
    functools.partial(channels.split, first=2), random_clips(2, 3, 2, 4, 5)
  ),
  'join': plain(
    channels.join,
    random_clips(2, 3, 2, 4, 5),
    random_clips(2, 3, 2, 4, 3, seed=1),
  ),
  'gru': [
    c for h in (1, 5, 16, 23) for n in (1, 3, 9) for c in recur('gru', h, n)
  ],
  'other_cells': [
    *recur('gru', 5, 3, reset_after=True),
    *recur('lstm', 5, 3),
    *recur('peephole_lstm', 5, 3),
    *recur('rnn', 5, 3),
  ],
  'max_pool': [
    Case(
      functools.partial(
        max_pool.max_pool, size=size, strides=strides, same=same
      ),
      (random_clips(2, 6, 7, 4, 3),),
    )
    for size, strides, same in (
      ((3, 3, 3), (2, 2, 2), False),
      ((1, 3, 3), (1, 2, 2), False),
      ((2, 1, 1), (2, 1, 1), False),
      ((3, 3, 3), (2, 2, 2), True),
      ((3, 3, 3), (1, 1, 1), True),
    )
  ],
  'temporal_shift': plain(
    temporal_shift.temporal_shift, random_clips(2, 4, 2, 3, 16)
  ),
  'adaptive_convolution': plain(
    adaptive_kernel.adaptive_convolution,
    random_clips(2, 4, 2, 3, 5),
    random_clips(2, 3, 5, 1, 1)[..., 0, 0],
  ),
  'gather_frames': plain(
    frame_selection.gather_frames,
    random_clips(2, 5, 3, 2, 4),
    np.array([[1, 3], [0, 4]], np.int32),
  ),
  'triplet_scores': plain(
    frame_selection.triplet_scores, random_clips(3, 7, 3, 4, 6)
  ),
}
# The kernels that an operation's program must call, where there are any.
_SEPARATED = (
  'separated_conv_forward',
  'separated_conv_input_gradient',
  'separated_conv_kernel_gradient',
)
_GROUPED = (
  'grouped_conv_forward',
  'grouped_conv_input_gradient',
  'grouped_conv_kernel_gradient',
)
_POOL = ('soft_pool_forward', 'soft_pool_backward')
_NORM = ('norm_forward', 'norm_backward')
KERNELS = {
  'separated_3x3x3': _SEPARATED,
  'separated_strided': _SEPARATED,
  'separated_strided_in_time': _SEPARATED,
  'separated_1x3x3': _SEPARATED,
  'separated_5x1x1': _SEPARATED,
  'separated_of_many_frames': _SEPARATED,
  'grouped': _GROUPED,
  'soft_pool': _POOL,
  'soft_pool_of_some_frames': _POOL,
  'soft_pool_windows_and_gradients': _POOL,
  'up_sample': ('up_sample_forward', 'up_sample_backward'),
  'mean': ('sums',),
  'triplet_scores': ('sums',),
  'norm': _NORM,
  'norm_relu': _NORM,
  'norm_swish': _NORM,
  'scale': ('scale_gradient',),
  'scale_relu': ('scale_gradient',),
  'scale_swish': ('scale_gradient',),
  'gru': ('gru_forward', 'gru_backward'),
}
