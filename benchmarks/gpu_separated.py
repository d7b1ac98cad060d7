"""The channel-separated convolution: candidates for a GPU, and PyTorch's.

Every candidate is checked against our own of `mtnet_jax.ops` in
float32, so that a wrong one cannot win. The least that any of them can do is
to read one array of the input's and one of the output's size, or to write one
and read the other.
"""

import functools
import importlib.util
import types
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import gpu_common
from benchmarks.gpu_common import Case, Contender, Options
from benchmarks.results import Row
from mtnet_jax.ops import conv, forms, separated_conv
from mtnet_jax.typing import Array, Float

# Of the seconds of other parts: there are many cases.
_SHARE = 0.2
# Largest error over the largest value. A GPU's own convolutions multiply
# float32 with the 10 bits of TF32; bfloat16 has 7.
_TOLERANCES = types.MappingProxyType({'float32': 5e-3, 'bfloat16': 3e-2})
PASSES = ('forward', 'input gradient', 'kernel gradient')
OURS = 'ours'


class Work(NamedTuple):
  """One convolution of a network.

  Attributes:
    shape: frames, height, width and channels of its input.
    kernel: the kernel's frames, rows, columns.
    stride: the stride in height and width.
  """

  shape: tuple[int, int, int, int]
  kernel: tuple[int, int, int] = (3, 3, 3)
  stride: int = 1

  @property
  def strides(self) -> tuple[int, int, int]:
    """The strides in time, height and width."""
    return (1, self.stride, self.stride)

  @property
  def name(self) -> str:
    """Kernel and stride."""
    return f'separated {"×".join(map(str, self.kernel))}/{self.stride}'


# X3D-M at 16×224²: the stem, the first and the later blocks of a stage; then
# the local branch of MTNet-M's first stage at 256², an odd width.
WORKS = (
  Work((16, 112, 112, 24), (5, 1, 1)),
  Work((16, 112, 112, 54), stride=2),
  Work((16, 56, 56, 54)),
  Work((16, 28, 28, 108)),
  Work((16, 14, 14, 216)),
  Work((16, 64, 64, 47)),
)
_SMALL_WORKS = (Work((3, 7, 7, 5), stride=2),)


def by_planes(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k 1 c'],
  strides: tuple[int, int, int],
) -> Float[Array, 'n u v x c']:
  """A grouped 2-D convolution of the frames below each frame of the kernel."""
  n, t, h, w, c = x.shape
  frames, stride = kernel.shape[0], strides[0]
  half = frames // 2
  count = (t + 2 * half - frames) // stride + 1
  padded = jnp.pad(x, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
  y = None
  for i, plane in enumerate(kernel):
    below = padded[:, i : i + stride * (count - 1) + 1 : stride]
    term = jax.lax.conv_general_dilated(
      below.reshape(n * count, h, w, c),
      plane,
      strides[1:],
      [(k // 2, k // 2) for k in plane.shape[:2]],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=c,
    )
    y = term if y is None else y + term
  return y.reshape(n, count, *y.shape[1:])


def by_shifts(
  x: Float[Array, 'n t h w c'],
  kernel: Float[Array, 'i j k 1 c'],
  strides: tuple[int, int, int],
) -> Float[Array, 'n u v x c']:
  """The form for CPUs, whose backward pass is a sum of shifts, too."""
  with forms.use('cpu'):
    return separated_conv.channel_separated_conv3d(x, kernel, strides)


CANDIDATES: Mapping[str, Callable] = types.MappingProxyType(
  {
    OURS: separated_conv.channel_separated_conv3d,
    'shifts': by_shifts,
    'shifts, autodiff': separated_conv.sum_shifts,
    'lax': conv.convolve,
    '2-D by frame': by_planes,
  }
)


def compute(candidate: Callable, what: str, strides: tuple) -> Callable:
  """A function of x, kernel and dy that gives one of `PASSES`, no more."""

  def run(x, kernel, dy):
    if what == 'forward':
      return candidate(x, kernel, strides)
    if what == 'input gradient':
      return jax.vjp(lambda x: candidate(x, kernel, strides), x)[1](dy)[0]
    return jax.vjp(lambda k: candidate(x, k, strides), kernel)[1](dy)[0]

  return run


def cases(options: Options) -> Iterator[Case]:
  """Every convolution, precision and pass."""
  bandwidth = gpu_common.copy_rate(options)
  for precision in _TOLERANCES:
    for work in _SMALL_WORKS if options.small else WORKS:
      for what in PASSES:
        yield Case(
          f'{work.name} {what} {precision}',
          functools.partial(_rows, work, what, precision, bandwidth, options),
        )


def _rows(work, what, precision, bandwidth, options):
  arrays = _draw(work, precision, options.batch)
  reference = _reference(work, what, arrays)
  errors = {}

  def checked(name, contender, result):
    errors[name] = largest_error(result, reference)
    if not errors[name] <= _TOLERANCES[precision]:
      raise RuntimeError(f'wrong by {errors[name]:.1e}')
    return contender

  def ours(name, candidate):
    run = jax.jit(compute(candidate, what, work.strides))
    run = run.lower(*arrays).compile()
    return checked(name, Contender(lambda: run(*arrays)), run(*arrays))

  contenders = {
    name: functools.partial(ours, name, candidate)
    for name, candidate in CANDIDATES.items()
  } | _torch_contenders(work, what, arrays, checked)
  timings, failures = gpu_common.contest(
    contenders, _SHARE * options.seconds, options.under_way()
  )
  peers = {k: v for k, v in timings.items() if k != OURS}
  if OURS not in timings:
    raise RuntimeError(failures[OURS])
  fastest = min(timings, key=lambda name: gpu_common.middle(timings[name]))
  return [
    Row(
      work=f'{work.name} {what}',
      shape='×'.join(map(str, (options.batch, *work.shape))),
      precision=precision,
      ours=timings[OURS],
      unit='s',
      peers={**peers, 'bandwidth': least_bytes(arrays) / bandwidth},
      goals={name: 2.0 for name in peers if name.startswith('PyTorch')},
      note='; '.join(
        [
          f'fastest: {fastest}',
          *(f'{name} {why}' for name, why in failures.items()),
          f'errors up to {max(errors[name] for name in timings):.1e}',
        ]
      ),
    )
  ]


def _draw(work, precision, batch):
  """Input, kernel and a gradient by the output."""
  shape = (batch, *work.shape)
  kernel = (*work.kernel, 1, shape[-1])
  out = jax.eval_shape(
    lambda x, k: conv.convolve(x, k, work.strides),
    jax.ShapeDtypeStruct(shape, precision),
    jax.ShapeDtypeStruct(kernel, precision),
  )
  keys = jax.random.split(jax.random.key(0), 3)
  return tuple(
    jax.random.normal(key, size, precision)
    for key, size in zip(keys, (shape, kernel, out.shape), strict=True)
  )


def _reference(work, what, arrays):
  wide = (a.astype(jnp.float32) for a in arrays)
  return jax.jit(compute(CANDIDATES[OURS], what, work.strides))(*wide)


@jax.jit
def _largest_error(result, reference):
  difference = jnp.abs(result.astype(jnp.float32) - reference)
  return jnp.max(difference) / jnp.max(jnp.abs(reference))


def largest_error(result: Array, reference: Array) -> float:
  """The largest difference over the largest value of the reference."""
  return float(_largest_error(result, reference))


def least_bytes(arrays: tuple[Array, Array, Array]) -> int:
  """Bytes of input and output, of which each pass reads or writes both."""
  x, _, dy = arrays
  return x.nbytes + dy.nbytes


def _torch_contenders(work, what, arrays, checked):
  if not importlib.util.find_spec('torch'):
    return {}
  from benchmarks import gpu_torch

  if not gpu_torch.on_same_device():
    return {}
  gpu_torch.free()

  def theirs(name, layout):
    contender = gpu_torch.separated(*arrays, work.strides, what, layout)
    return checked(name, contender, gpu_torch.to_jax(contender.start(), what))

  names = {f'PyTorch, {layout}': layout for layout in gpu_torch.LAYOUTS}
  return {
    name: functools.partial(theirs, name, layout)
    for name, layout in names.items()
  }
