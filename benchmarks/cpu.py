"""Compares our speed on a CPU with PyTorch's, and with the machine's limits.

    python -m benchmarks.cpu [--only=TEXT] [--seconds=2] [--out=DIR]

Measures, in float32, train steps and inference of whole networks, the
channel-separated convolution, compilation, and the loading of clips. Every
peer runs in turns with ours, on all cores, in a process of its own; medians are
compared. Prints a line for each row as it comes and a table at the end, and
adds the rows to DIR/YYYY-MM-DD-DEVICE.json.

PyTorch is measured in both of its memory layouts, and the faster one is its
best. It gets normalized float clips, which is its easier case: ours are uint8
and normalized in the program.
"""

import contextlib
import functools
import importlib.util
import math
import os
import pathlib
import platform
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import compilation, measure, programs, results
from benchmarks.measure import Timing
from benchmarks.programs import Program
from mtnet_jax import cli, models
from mtnet_jax.analysis import cost
from mtnet_jax.devices import compiler, host_memory
from mtnet_jax.errors import UserError
from mtnet_jax.ops.separated_conv import channel_separated_conv3d

_CLASSES = programs.CLASSES
# Of `torch_peers.LAYOUTS`.
_LAYOUTS = ('default', 'channels_last_3d')
# Bytes, far more than the caches hold.
_COPIED_BYTES = 2**28

Run = Callable[[], Any]
Peers = Mapping[str, Timing]


class Case(NamedTuple):
  """A row to be measured.

  Attributes:
    work: what it is.
    shape: the shape of the inputs, in words.
    ours: makes our program.
    others: functions, by name, that make a contender: what runs in turns with
      ours and waits for its result.
    compare: a function from the others' timings to the row's peers.
    goals: the least ratio to ours that is aimed at, by the peer's name.
  """

  work: str
  shape: str
  ours: Callable[[], Program]
  others: Mapping[str, Callable[[], Run]]
  compare: Callable[[Peers], Peers]
  goals: Mapping[str, float] = types.MappingProxyType({})

  @property
  def name(self) -> str:
    """Work and shape."""
    return f'{self.work}, {self.shape}'


def cases() -> list[Case]:
  """Returns every row of networks and layers, with its goals."""
  train, infer = 'train step', 'inference'
  large, small = (1, 16, 224), (2, 4, 112)
  return [
    network('x3d_m', train, large, default=2.0, best=1.2),
    network('x3d_m', train, small, default=2.0, best=2.0),
    network('x3d_m', infer, large, default=2.2, best=1.5),
    network('x3d_m', infer, small, default=2.2, best=1.5),
    network('srtg_r3d_34', train, (1, 16, 112), best=1.3),
    *(
      network(name, kind, shape, best=1.0)
      for name, shape in (
        ('slow_r50', (2, 4, 112)),
        ('slowfast_r50_8x8', (1, 16, 112)),
        ('ir_csn_101', (1, 16, 112)),
        ('tsm_r50', (1, 8, 112)),
      )
      for kind in (infer, train)
    ),
    by_macs('mtnet_m', 'x3d_m', train, large),
    by_macs('mtnet_m', 'x3d_m', infer, large),
    *(
      separated((1, 16, size, size, c), strides, backward)
      for size, c, strides in (
        (56, 54, (1, 1, 1)),
        (56, 108, (1, 2, 2)),
        (28, 108, (1, 1, 1)),
        (14, 216, (1, 1, 1)),
      )
      for backward in (False, True)
    ),
  ]


def _program(name, kind, shape):
  make = programs.train_step if kind == 'train step' else programs.inference
  n, frames, size = shape
  model = models.build(name, _CLASSES)
  return functools.partial(make, model, (frames, size, size, 3), n)


def _clips_in_words(shape):
  n, frames, size = shape
  return f'{n}×{frames}×{size}²'


def network(
  name: str, kind: str, shape: tuple[int, int, int], **goals: float
) -> Case:
  """Returns the case of a network of ours against PyTorch's.

  Args:
    name: the name of a network that `torch_rows` has too.
    kind: 'train step' or 'inference'.
    shape: clips, frames, height and width in pixels.
    **goals: least ratios to its `default` layout and to its `best`.
  """
  return Case(
    f'{name} {kind}',
    _clips_in_words(shape),
    _program(name, kind, shape),
    {
      layout: functools.partial(_torch, 'network', name, kind, shape, layout)
      for layout in _LAYOUTS
    },
    best_layout,
    {f'PyTorch, {layout}': goal for layout, goal in goals.items()},
  )


def best_layout(times: Peers) -> Peers:
  """Returns PyTorch's default layout and the faster one of both layouts."""
  best = min(times.values(), key=lambda timing: timing.median)
  return {'PyTorch, default': times['default'], 'PyTorch, best': best}


def by_macs(
  name: str, other: str, kind: str, shape: tuple[int, int, int]
) -> Case:
  """Returns a network's case against another of ours, by multiply-adds."""
  _, frames, size = shape

  def compare(times):
    macs = [
      cost.macs(models.build(n, _CLASSES), (frames, size, size, 3))
      for n in (name, other)
    ]
    return {peer: scaled(times[other], macs[0] / macs[1])}

  peer = f'{other} × ratio of MACs'
  return Case(
    f'{name} {kind}',
    _clips_in_words(shape),
    _program(name, kind, shape),
    {other: functools.partial(_start, _program(other, kind, shape))},
    compare,
    {peer: 1 / 1.5},
  )


def separated(
  shape: tuple[int, ...], strides: tuple[int, int, int], backward: bool
) -> Case:
  """Returns the case of the channel-separated 3×3×3 against PyTorch and a copy.

  Args:
    shape: the shape of the input, `n t h w c`, divisible by the strides.
    strides: frames, rows, columns.
    backward: whether both passes are made.
  """
  n, t, h, w, c = shape
  y_shape = (n, t, h // strides[1], w // strides[2], c)

  def ours():
    x, kernel, dy = (
      jax.ShapeDtypeStruct(s, jnp.float32)
      for s in (shape, (3, 3, 3, 1, c), y_shape)
    )

    def convolve(x, kernel):
      return channel_separated_conv3d(x, kernel, strides)

    def with_gradients(x, kernel, dy):
      y, vjp = jax.vjp(convolve, x, kernel)
      return y, vjp(dy)

    if backward:
      program = compiler.jit(with_gradients, programs.one_device())
      return Program(program, (x, kernel, dy))
    return Program(compiler.jit(convolve, programs.one_device()), (x, kernel))

  def compare(times):
    share = separated_bytes(shape, y_shape, backward) / (2 * _COPIED_BYTES)
    layouts = {k: v for k, v in times.items() if k != 'copy'}
    limit = scaled(times['copy'], share)
    return {**best_layout(layouts), 'memory bandwidth': limit}

  passes = 'forward and backward' if backward else 'forward'
  return Case(
    f'channel-separated 3×3×3, stride {strides[1]}, {passes}',
    '×'.join(map(str, shape)),
    ours,
    {
      layout: functools.partial(
        _torch, 'separated', shape, strides, y_shape, backward, layout
      )
      for layout in _LAYOUTS
    }
    | {'copy': functools.partial(_torch, 'copy', _COPIED_BYTES)},
    compare,
    {'PyTorch, best': 2.0},
  )


def separated_bytes(
  shape: tuple[int, ...], y_shape: tuple[int, ...], backward: bool
) -> int:
  """Returns the least bytes that must move in float32, without kernels.

  Forward x is read and y written; backward x and dy are read, dx written.

  Args:
    shape: the shape of x.
    y_shape: the shape of the output.
    backward: whether both passes are made.
  """
  x, y = math.prod(shape), math.prod(y_shape)
  return 4 * (3 * x + 2 * y if backward else x + y)


def scaled(timing: Timing, factor: float) -> Timing:
  """Returns the timing of `factor` times as much work."""
  *seconds, runs = timing
  return Timing(*(factor * value for value in seconds), runs)


def contender(name: str, which: str) -> Run:
  """Returns what one of a case's contenders runs.

  Args:
    name: the case's name.
    which: 'ours', or one of the others.
  """
  (case,) = (case for case in cases() if case.name == name)
  return _start(case.ours) if which == 'ours' else case.others[which]()


def _start(make):
  """Returns a program of ours, compiled as our commands would run it."""
  host_memory.keep_freed_memory()
  program = make()
  return program.start(program.compile())


def _torch(make, *args):
  """Returns PyTorch's program; PyTorch may be absent where only ours is run."""
  from benchmarks import torch_rows

  return getattr(torch_rows, make)(*args)


def run(case: Case, seconds: float) -> results.Row:
  """Measures a case.

  Args:
    case: one of `cases()`.
    seconds: the time to measure each contender, in seconds.
  """
  with contextlib.ExitStack() as stack:
    contenders = {
      which: stack.enter_context(measure.apart(contender, case.name, which))
      for which in ('ours', *case.others)
    }
    times = measure.turns(contenders, seconds)
  ours = times.pop('ours')
  return results.Row(
    work=case.work,
    shape=case.shape,
    precision='float32',
    ours=ours,
    unit='s',
    peers=case.compare(times),
    goals=case.goals,
  )


def parts(
  seconds: float,
) -> Iterator[tuple[str, Callable[[], list[results.Row]]]]:
  """Yields the name of each part of the benchmark, and its function of rows."""
  for case in cases():
    yield case.name, lambda case=case: [run(case, seconds)]
  yield 'compilation', compilation.rows
  yield 'loading', functools.partial(_loading_rows, seconds)


def _loading_rows(seconds):
  from benchmarks import loading

  return loading.rows(seconds)


def device_name() -> str:
  """Returns the processor and how many of its cores this process may use."""
  name = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    found = re.search(r'^model name\s*: (.*)', info.read_text(), re.MULTILINE)
    name = found[1] if found else name
  return f'{name}, {len(os.sched_getaffinity(0))} cores'


def check_peers() -> None:
  """Raises a UserError where PyTorch or PyTorchVideo is not installed."""
  needed = ('torch', 'fvcore', 'iopath', 'pytorchvideo')
  missing = [name for name in needed if not importlib.util.find_spec(name)]
  if missing:
    raise UserError(
      f'The peers need {", ".join(missing)}: pip install torch fvcore iopath '
      '&& pip install --no-deps pytorchvideo'
    )


def main(only: str, seconds: float, out: str) -> None:
  """Prints and keeps the rows.

  Args:
    only: text in the names of the rows to measure.
    seconds: the time to measure each contender, in seconds.
    out: folder.

  Raises:
    UserError: a peer is not installed, or no row has such a name.
  """
  check_peers()
  os.environ['JAX_PLATFORMS'] = 'cpu'  # of the contenders' processes
  jax.config.update('jax_platforms', 'cpu')
  device = device_name()
  command = ' '.join(['python -m benchmarks.cpu', *sys.argv[1:]])
  print(device, flush=True)
  rows, path = [], None
  for name, measured in parts(seconds):
    if only not in name:
      continue
    for row in measured():
      rows.append(row)
      path = results.write([row], device, command, out)
      found = [f'{k} {v:.2f}×' for k, v in results.ratios(row).items()]
      print(f'{row.work}, {row.shape}: {", ".join(found)}', flush=True)
  if not rows:
    names = '; '.join(name for name, _ in parts(seconds))
    raise UserError(f'No row has --only={only!r} in its name: {names}.')
  print(f'\n{results.table(rows)}\n\n{path}')


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'only', '', 'Text in the names of rows to measure.', flag_values=values
  )
  flags.DEFINE_float(
    'seconds', 2.0, 'Seconds for each contender.', 0.0, flag_values=values
  )
  flags.DEFINE_string(
    'out', 'benchmarks/results', 'Folder for the rows.', flag_values=values
  )


COMMAND = cli.Command(
  lambda values, _: main(values.only, values.seconds, values.out), define_flags
)


if __name__ == '__main__':
  cli.run(COMMAND)
