"""Times each layer's formulation against the most obvious one.

    python -m benchmarks.layers

Prints, for every operation, the milliseconds of ours and the ratio to the named
peer's (above 1: ours is faster), for the forward pass and for the forward and
the backward pass together, and the seconds that both together take to compile.
The two are timed in turns and the medians compared. Shapes are those of a clip
in an MTNet or a ResNet, some with fewer frames or pixels to keep the slow peers
bearable.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import linen as nn

from benchmarks import measure
from mtnet_jax.layers import norm
from mtnet_jax.ops import (
  conv,
  frame_selection,
  grouped_conv,
  separated_conv,
  soft_pool,
)

_SECONDS = flags.DEFINE_float(
  'seconds', 2.0, 'Time in seconds to measure each comparison.'
)
_ONLY = flags.DEFINE_string(
  'only',
  '',
  'Measure only operations whose name contains this text; without it all.',
)

SEPARATED = separated_conv.channel_separated_conv3d


class Case(NamedTuple):
  """One operation: `ours` and `peer` take the same arrays.

  Attributes:
    name: the operation's name.
    peer_name: the name of the formulation that it is compared with.
    ours: function under test.
    peer: function with the same values.
    shapes: the shapes of the arguments, float32; gradients are taken by all of
      them.
  """

  name: str
  peer_name: str
  ours: Callable
  peer: Callable
  shapes: tuple


def window_soft_pool(x):
  """SoftPool as two windowed sums; even sizes."""
  exps = jnp.exp(x)
  window = (1, 1, 2, 2, 1)
  total = functools.partial(
    jax.lax.reduce_window,
    init_value=0.0,
    computation=jax.lax.add,
    window_dimensions=window,
    window_strides=window,
    padding='VALID',
  )
  return total(x * exps) / total(exps)


def one_hot_frames(x, select):
  """The chosen frames as a product with a one-hot matrix."""
  chosen = jax.nn.one_hot(select(x), x.shape[1])
  return jnp.einsum('nkt,nthwc->nkhwc', chosen, x)


def conv_case(name, shape, size, features=0, strides=(1, 1, 1)):
  """A convolution, channel-separated without `features`."""
  c = shape[-1]
  kernel = (*size, c, features) if features else (*size, 1, c)
  ours = conv.conv3d if features else SEPARATED
  return Case(
    f'{name} {"×".join(map(str, size))}/{strides[1]}',
    'grouped lax convolution' if not features else 'lax 3-D convolution',
    lambda x, k: ours(x, k, strides),
    lambda x, k: conv.convolve(x, k, strides),
    (shape, kernel),
  )


def grouped_case(shape, size, groups, strides=(1, 1, 1)):
  """A grouped convolution of as many features as channels."""
  c = shape[-1]
  return Case(
    f'grouped {"×".join(map(str, size))}/{strides[1]}',
    'grouped lax convolution',
    lambda x, k: grouped_conv.grouped_conv3d(x, k, strides),
    lambda x, k: conv.convolve(x, k, strides),
    (shape, (*size, c // groups, c)),
  )


def norm_case(shape):
  """BatchNorm in training, its statistics included."""

  def apply(layer):
    def run(x):
      stats = {'mean': jnp.zeros(x.shape[-1]), 'var': jnp.ones(x.shape[-1])}
      params = {'scale': jnp.ones(x.shape[-1]), 'bias': jnp.zeros(x.shape[-1])}
      y, _ = layer.apply(
        {'params': params, 'batch_stats': stats}, x, mutable='batch_stats'
      )
      return y

    return run

  return Case(
    'BatchNorm',
    'flax.linen.BatchNorm',
    apply(norm.BatchNorm(use_running_average=False)),
    apply(nn.BatchNorm(use_running_average=False)),
    (shape,),
  )


def cases() -> list[Case]:
  """Every comparison."""
  select = frame_selection.select_frame_indices
  return [
    conv_case('separated', (1, 16, 28, 28, 54), (3, 3, 3)),
    conv_case('separated', (1, 16, 28, 28, 54), (3, 3, 3), 0, (1, 2, 2)),
    conv_case('separated', (1, 16, 14, 14, 216), (3, 3, 3)),
    conv_case('separated', (8, 8, 8, 8, 24), (3, 3, 3)),
    Case(
      'separated 3×3×3/1',
      'autodiff of the same sum',
      SEPARATED,
      functools.partial(separated_conv.sum_shifts, strides=(1, 1, 1)),
      ((1, 16, 28, 28, 54), (3, 3, 3, 1, 54)),
    ),
    conv_case('separated stem', (1, 16, 56, 56, 24), (5, 1, 1)),
    grouped_case((1, 8, 28, 28, 128), (3, 3, 3), 32),
    grouped_case((1, 4, 14, 14, 256), (3, 3, 3), 32),
    grouped_case((1, 8, 28, 28, 192), (1, 3, 3), 16),
    conv_case('dense', (1, 8, 28, 28, 64), (3, 3, 3), 64),
    conv_case('dense', (1, 8, 28, 28, 64), (3, 3, 3), 128, (1, 2, 2)),
    conv_case('dense', (8, 8, 8, 8, 16), (3, 3, 3), 14),
    conv_case('dense', (1, 16, 28, 28, 54), (1, 1, 1), 54),
    conv_case('dense', (1, 8, 28, 28, 64), (3, 1, 1), 64),
    conv_case('dense stem', (1, 16, 64, 64, 3), (3, 7, 7), 64, (1, 2, 2)),
    conv_case('dense stem', (1, 16, 112, 112, 3), (1, 3, 3), 24, (1, 2, 2)),
    norm_case((1, 16, 56, 56, 54)),
    Case(
      'SoftPool',
      'reduce_window, autodiff',
      soft_pool.soft_pool,
      window_soft_pool,
      ((1, 16, 56, 56, 54),),
    ),
    Case(
      'frame selection',
      'one-hot matrix product',
      lambda x: frame_selection.gather_frames(x, select(x)),
      lambda x: one_hot_frames(x, select),
      ((1, 16, 28, 28, 54),),
    ),
  ]


def with_gradient(function: Callable) -> Callable:
  """The function with the gradients of its squared values."""

  def run(*args):
    y, vjp = jax.vjp(function, *args)
    return y, vjp(2 * y)

  return run


def race(ours: Callable, peer: Callable, args) -> tuple[float, float, float]:
  """Returns medians of ours and peer in ms, and ours' compile time in s."""
  start = time.perf_counter()
  compiled = {'ours': jax.jit(ours).lower(*args).compile()}
  compile_time = time.perf_counter() - start
  compiled['peer'] = jax.jit(peer).lower(*args).compile()
  runs = {k: measure.ready(run, *args) for k, run in compiled.items()}
  times = measure.race(runs, _SECONDS.value / 2)
  return 1e3 * times['ours'].median, 1e3 * times['peer'].median, compile_time


def main(argv):
  del argv
  print(f'{jax.devices()[0].device_kind}, {jax.device_count()} devices')
  print(
    f'{"operation":26}{"shape":22}{"forward":>16}{"and backward":>18}'
    f'{"compile":>9}  against'
  )
  for case in cases():
    if _ONLY.value not in case.name:
      continue
    keys = jax.random.split(jax.random.key(0), len(case.shapes))
    args = [
      jax.random.normal(key, shape)
      for key, shape in zip(keys, case.shapes, strict=True)
    ]
    ours, peer, _ = race(case.ours, case.peer, args)
    both, both_peer, compile_time = race(
      with_gradient(case.ours), with_gradient(case.peer), args
    )
    print(
      f'{case.name:26}{"×".join(map(str, case.shapes[0])):22}'
      f'{ours:8.2f} {peer / ours:6.1f}×{both:10.2f} {both_peer / both:6.1f}×'
      f'{compile_time:8.2f}s  {case.peer_name}',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
