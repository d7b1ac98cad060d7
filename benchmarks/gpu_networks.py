"""Whole networks on a GPU: training and inference, against PyTorch and limits.

Two limits: the bandwidth floor, every convolution reading its input and its
kernel and writing its output once, with all that stands between computed on
the way; and the arithmetic floor, all multiply-adds at the rate of a large
product of matrices. A train step is three times as much of both: each
convolution has a gradient by its input and one by its kernel.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator

import jax
from flax import linen as nn

from benchmarks import gpu_common, programs
from benchmarks.gpu_common import Case, Contender, Options
from benchmarks.programs import Program
from benchmarks.results import Row
from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D

NAMES = ('x3d_m', 'mtnet_m', 'mtnet_l', 'srtg_r3d_50')
SMALL = 'mtnet_xs'
OURS = 'ours'
# PyTorch's network beside ours; the goal of training is of the same network.
_PEERS = {'x3d_m': 'x3d_m', 'srtg_r3d_50': 'r3d_50', SMALL: 'r3d_50'}
_MODES = ('train', 'inference')
_UNDER_WAY = 5


def build(name: str, **overrides) -> nn.Module:
  """The network in bfloat16; of the small one, a single plain block."""
  if name != SMALL:
    return models.build(name, programs.CLASSES, dtype='bfloat16', **overrides)
  overrides |= {'local_ratio': 1.0, 'recurrence': False}
  model = models.build(name, programs.CLASSES, dtype='bfloat16', **overrides)
  return model.copy(blocks=(1,), stages=model.stages[:1])


def clip_shape(name: str, options: Options) -> tuple[int, int, int, int]:
  """Frames, height, width, channels of the network's own clip."""
  frames, size = (4, 32) if options.small else models.DEFAULT_CLIPS[name]
  return (frames, size, size, 3)


def contender(program: Program, compiled: Callable) -> Contender:
  """Starts the program again and again, a step from the state before."""
  first, *rest = programs.draw(program.arguments)

  def start():
    nonlocal first
    result = compiled(first, *rest)
    if program.has_state:
      first = result[0]
    return result

  return Contender(start)


def floor_bytes(
  model: nn.Module, shape: tuple[int, int, int, int], batch: int = 1
) -> int:
  """Bytes that the layers with kernels read and write in a forward pass.

  Args:
    model: a network from `build`.
    shape: frames, height, width, channels of a clip.
    batch: clips, which share the kernels.
  """
  total = 0

  def record(call, args, kwargs, context):
    nonlocal total
    out = call(*args, **kwargs)
    module = context.module
    layers = (Classifier, Conv3D, nn.Dense)
    if context.method_name == '__call__' and isinstance(module, layers):
      total += batch * (_num_bytes(args[0]) + _num_bytes(out))
      kernel = module.variables['params']['kernel']
      total += kernel.size * out.dtype.itemsize
    return out

  clip = jax.ShapeDtypeStruct((1, *shape), model.dtype)
  with nn.intercept_methods(record):
    jax.eval_shape(model.init, jax.random.key(0), clip)
  return total


def _num_bytes(array):
  return array.size * array.dtype.itemsize


def cases(options: Options) -> Iterator[Case]:
  """Training and inference of every network."""
  bandwidth = gpu_common.copy_rate(options)
  arithmetic = gpu_common.matmul_rate(options)
  for name in (SMALL,) if options.small else NAMES:
    for mode in _MODES:
      yield Case(
        f'{name} {mode}',
        functools.partial(_rows, name, mode, bandwidth, arithmetic, options),
      )


def _rows(name, mode, bandwidth, arithmetic, options):
  model, shape = build(name), clip_shape(name, options)
  batch = options.batch

  def ours():
    make = programs.train_step if mode == 'train' else programs.inference
    program = make(model, shape, batch)
    return contender(program, program.compile())

  contenders = {OURS: ours} | _torch_contenders(name, mode, (batch, *shape))
  under_way = options.under_way(_UNDER_WAY)
  timings, failures = gpu_common.contest(contenders, options.seconds, under_way)
  if OURS not in timings:
    raise RuntimeError(failures[OURS])
  a_clip = {k: gpu_common.scaled(v, 1 / batch) for k, v in timings.items()}
  mine = a_clip.pop(OURS)
  passes = 3 if mode == 'train' else 1
  moved = passes * floor_bytes(model, shape, batch) / batch
  operations = passes * 2 * cost.macs(model, shape)
  goals = {'bandwidth floor': 0.5} if mode == 'inference' else {}
  if name == 'x3d_m' and mode == 'train':
    goals = {peer: 2.0 for peer in a_clip}
  return [
    Row(
      work=f'{name} {mode}',
      shape=f'{batch}×{shape[0]}×{shape[1]}²',
      precision='bfloat16',
      ours=mine,
      unit='s/clip',
      peers={
        **a_clip,
        'bandwidth floor': moved / bandwidth,
        'arithmetic floor': operations / arithmetic,
      },
      goals=goals,
      note='; '.join(
        [
          f'{1 / gpu_common.middle(mine):.1f} clips a second',
          f'at least {moved / 1e9:.3g} GB and {operations / 1e9:.3g} GFLOP '
          'a clip',
          *(f'{peer} {why}' for peer, why in failures.items()),
        ]
      ),
    )
  ]


def _torch_contenders(
  name: str, mode: str, clips: tuple[int, ...]
) -> dict[str, Callable[[], Contender]]:
  peer = _PEERS.get(name)
  needed = ['torch', *(['pytorchvideo'] if peer == 'x3d_m' else [])]
  if peer is None or not all(map(importlib.util.find_spec, needed)):
    return {}
  from benchmarks import gpu_torch

  if not gpu_torch.on_same_device():
    return {}
  gpu_torch.free()
  prepare = gpu_torch.train if mode == 'train' else gpu_torch.inference
  return {
    f'PyTorch {peer}, {layout}': functools.partial(prepare, peer, clips, layout)
    for layout in gpu_torch.LAYOUTS
  }
