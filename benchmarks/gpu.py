"""Measures speed on a GPU: python -m benchmarks.gpu [--part=NAME].

Parts, each in a process of its own, so that none begins with the memory of
another:

  limits     bandwidth of a copy, rate of a product of matrices
  separated  the channel-separated convolution: candidates, PyTorch, bandwidth
  networks   training and inference in bfloat16: PyTorch, bandwidth, arithmetic
  memory     MTNet-L's train step, with rematerialization and without
  compile    MTNet-L's train step, compiled anew and from the cache
  profile    where the time of MTNet-M's train step goes

A row is written as soon as it is measured, to `OUT/YYYY-MM-DD-DEVICE.json`,
which later parts add to; what does not fit into memory is reported and left
out. PyTorch stands beside ours where it is installed, with CUDA; its X3D needs
pytorchvideo (docs/performance.md). `--small` tries all of it on any device.
"""

import functools
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping

import jax
from absl import flags

from benchmarks import (
  gpu_common,
  gpu_costs,
  gpu_networks,
  gpu_separated,
  results,
)
from benchmarks.gpu_common import Case, Options, Part
from benchmarks.results import Row
from mtnet_jax import cli
from mtnet_jax.errors import USER_ERROR, UserError

_RESULTS = 'benchmarks/results'


def limits(options: Options) -> Iterator[Case]:
  """Measures what the device can do at best."""

  def copy():
    timing, moved = gpu_common.time_copy(options)
    rate = moved / timing.median
    shape = f'{moved // 2 / 2**20:.0f} MiB'
    note = f'{rate / 1e12:.3g} TB/s, read and written'
    return [Row('copy', shape, 'float32', timing, 's', {}, note=note)]

  def matmul(dtype, precision):
    timing, operations = gpu_common.time_matmul(options, dtype, precision)
    side = round((operations / 2) ** (1 / 3))
    work = f'product of matrices, {precision} precision'
    note = f'{operations / timing.median / 1e12:.3g} TFLOP/s'
    return [Row(work, f'{side}²', dtype, timing, 's', {}, note=note)]

  yield Case('copy', copy)
  # By default a GPU rounds float32 to TF32 before it multiplies.
  for dtype, precision in (
    ('bfloat16', 'default'),
    ('float32', 'default'),
    ('float32', 'highest'),
  ):
    yield Case(
      f'matmul {dtype} {precision}', functools.partial(matmul, dtype, precision)
    )


PARTS: Mapping[str, Part] = types.MappingProxyType(
  {
    'limits': limits,
    'separated': gpu_separated.cases,
    'networks': gpu_networks.cases,
    'memory': gpu_costs.memory,
    'compile': gpu_costs.compile_times,
    'profile': gpu_costs.profile,
  }
)


def run_part(part: str, options: Options, only: str = '') -> list[Row]:
  """Measures, prints and writes a part's rows.

  Args:
    part: one of `PARTS`.
    options: the command's options.
    only: cases whose name contains this.

  Returns:
    The rows.
  """
  rows = []
  device = jax.devices()[0].device_kind
  command = f'python -m benchmarks.gpu --part={part}'
  for case in PARTS[part](options):
    if only not in case.name:
      continue
    try:
      measured = case.measure()
    except RuntimeError as error:  # short of memory, or the compiler's refusal
      print(f'{case.name}: {gpu_common.reason(error)}', flush=True)
      continue
    rows += measured
    path = results.write(measured, device, command, options.out)
    for row in measured:
      print(_line(row), flush=True)
  if rows:
    print(f'\n{results.table(rows)}\n\n{path}', flush=True)
  return rows


def _line(row):
  ratios = results.ratios(row).items()
  told = [row.note, *(f'{ratio:.2f} × {name}' for name, ratio in ratios)]
  text = f'{row.work} {row.shape} {row.precision}: '
  return text + '; '.join(part for part in told if part)


def main(values: flags.FlagValues) -> None:
  """Measures one part, or all of them one after the other."""
  # Memory is shared with PyTorch, and every part shall show what it needs.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if values.small and not values.out:
    raise UserError(
      '--small is a try whose numbers mean nothing: name a folder for them '
      'with --out=FOLDER.'
    )
  if not values.part:
    _run_all(sys.argv[1:])
    return
  if not values.small and jax.default_backend() != 'gpu':
    raise UserError(
      f'This benchmark needs a GPU, and JAX sees only '
      f'{jax.devices()[0].device_kind} here. On a machine that has one, '
      "install jax[cuda13]; to try the benchmark's own code anywhere, give "
      '--small --out=FOLDER.'
    )
  options = Options(
    pathlib.Path(values.out or _RESULTS),
    values.small,
    values.batch,
    values.seconds,
  )
  run_part(values.part, options, values.only)


def _run_all(arguments):
  failed = []
  for part in PARTS:
    print(f'--- {part}', flush=True)
    command = [sys.executable, '-m', 'benchmarks.gpu', f'--part={part}']
    code = subprocess.run([*command, *arguments], check=False).returncode
    if code == USER_ERROR:
      sys.exit(code)  # its sentence is printed, and the others would fail alike
    if code:
      failed.append(part)
  if failed:
    print(f'Failed: {", ".join(failed)}.', file=sys.stderr)
    sys.exit(1)


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_enum(
    'part',
    None,
    list(PARTS),
    'Part of the benchmark to run; without it all, one after the other.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'only',
    '',
    'Measure only cases whose name contains this text; without it all.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    f'Folder to write the JSON file to; without it {_RESULTS}.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'batch', 16, 'Number of clips per step.', 1, flag_values=values
  )
  flags.DEFINE_float(
    'seconds',
    1.0,
    'Time in seconds to measure each contender of a race.',
    0.0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'small',
    False,
    'Try the code on tiny shapes, whose figures mean nothing.',
    flag_values=values,
  )


COMMAND = cli.Command(lambda values, _: main(values), define_flags)


if __name__ == '__main__':
  cli.run(COMMAND)
