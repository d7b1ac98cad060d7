"""Measures memory and compilation of a train step, and profiles it."""

import collections
import functools
import pathlib
from collections.abc import Iterator

import jax

from benchmarks import compilation, gpu_common, gpu_networks, programs
from benchmarks.gpu_common import Case, Options
from benchmarks.results import Row

_WITHOUT = 'without rematerialization'
# The memory halved at so many times the time.
_MEMORY_RATIO, _TIME_RATIO = 2.0, 1 / 1.35
_PROFILED_STEPS = 3
_COSTLIEST = 20


def memory(options: Options) -> Iterator[Case]:
  """MTNet-L's train step with rematerialization, beside the one without."""
  name = gpu_networks.SMALL if options.small else 'mtnet_l'
  shape = gpu_networks.clip_shape(name, options)

  @functools.cache
  def program(rematerialize):
    model = gpu_networks.build(name, rematerialize=rematerialize)
    step = programs.train_step(model, shape, options.batch)
    return step, step.compile()

  row = functools.partial(_memory_row, name, shape, options.batch)

  def temporary():
    ours, without = (
      program(on)[1].memory_analysis().temp_size_in_bytes
      for on in (True, False)
    )
    what = 'memory set aside by the compiler'
    return [row(what, ours, without, 'bytes', _MEMORY_RATIO)]

  def peak():
    ours, without = (_peak(*program(on)) for on in (True, False))
    return [row('largest memory in use', ours, without, 'bytes', _MEMORY_RATIO)]

  def seconds():
    timings, failures = gpu_common.contest(
      {
        key: functools.partial(
          lambda on: gpu_networks.contender(*program(on)), key == 'with'
        )
        for key in ('with', _WITHOUT)
      },
      options.seconds,
      options.under_way(5),
    )
    if failures:
      raise RuntimeError('; '.join(f'{k} {v}' for k, v in failures.items()))
    return [row('time', timings['with'], timings[_WITHOUT], 's', _TIME_RATIO)]

  yield Case(f'{name} memory of the compiler', temporary)
  # The device counts the most since it started: that with little comes first.
  if jax.devices()[0].memory_stats():
    yield Case(f'{name} memory in use', peak)
  yield Case(f'{name} time of rematerialization', seconds)


def _memory_row(name, shape, batch, what, ours, without, unit, goal):
  return Row(
    work=f'{name} train, rematerialized: {what}',
    shape=f'{batch}×{shape[0]}×{shape[1]}²',
    precision='bfloat16',
    ours=ours,
    unit=unit,
    peers={_WITHOUT: without},
    goals={_WITHOUT: goal},
  )


def _peak(program, compiled):
  contender = gpu_networks.contender(program, compiled)
  contender.wait(contender.start())
  return jax.devices()[0].memory_stats()['peak_bytes_in_use']


def compile_times(options: Options) -> Iterator[Case]:
  """MTNet-L's train step, traced and compiled in processes of their own."""
  name = gpu_networks.SMALL if options.small else 'mtnet_l'
  frames, size, *_ = gpu_networks.clip_shape(name, options)
  yield Case(
    f'{name} compilation', lambda: compilation.rows(name, (frames, size))
  )


def profile(options: Options) -> Iterator[Case]:
  """Profiles MTNet-M's train step, into `OUT/profile`.

  The whole trace for TensorBoard or xprof, and in `costliest.txt` the
  operations that take the most time, which the row's note says in short.
  """
  name = gpu_networks.SMALL if options.small else 'mtnet_m'
  shape = gpu_networks.clip_shape(name, options)

  def measure():
    model = gpu_networks.build(name)
    program = programs.train_step(model, shape, options.batch)
    contender = gpu_networks.contender(program, program.compile())
    contender.wait(contender.start())
    folder = options.out / 'profile'
    with jax.profiler.trace(folder):
      for _ in range(_PROFILED_STEPS):
        result = contender.start()
      contender.wait(result)
    costs = costliest(folder)
    total = sum(costs.values())
    lines = [
      f'{1e3 * seconds / _PROFILED_STEPS:9.3f} ms {seconds / total:6.1%}  {op}'
      for op, seconds in costs.most_common(_COSTLIEST)
    ]
    (folder / 'costliest.txt').write_text('\n'.join(lines) + '\n')
    print('\n'.join(lines), flush=True)
    return [
      Row(
        work=f'{name} train, busy time in a profile',
        shape=f'{options.batch}×{shape[0]}×{shape[1]}²',
        precision='bfloat16',
        ours=total / _PROFILED_STEPS,
        unit='s',
        peers={},
        note=f'costliest: {", ".join(op for op, _ in costs.most_common(3))}',
      )
    ]

  yield Case(f'{name} profile', measure)


def costliest(folder: pathlib.Path) -> collections.Counter:
  """Seconds by operation of XLA, of the last trace in a folder."""
  path = max(folder.rglob('*.xplane.pb'), key=lambda p: p.stat().st_mtime)
  costs = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      # The other lines say the same again, by module or by line of source.
      is_gpu = line.name.startswith('Stream')
      if not is_gpu and not line.name.startswith('tf_XLA'):
        continue
      for event in line.events:
        # All that a GPU does counts, of a CPU's threads what has a name.
        kernel = event.name if is_gpu else None
        operation = dict(event.stats).get('hlo_op', kernel)
        if operation:
          costs[operation] += 1e-9 * event.duration_ns
  return costs
