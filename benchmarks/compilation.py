"""Measures how long the largest network's train step takes to compile.

    python -m benchmarks.compilation NAME FRAMES SIZE [CLIPS [STEPS [FIELDS]]]

Prints the seconds of one start, as JSON: `trace` until XLA has the program, and
`compile` until it can run; `temporary`, the bytes that the program needs
besides what it takes and returns; and `step`, the median seconds of so many
steps, null of none. Fields are the network's, such as `rematerialize=true` or
`dtype="bfloat16"`. `rows` starts that twice, in processes of their own with a
compilation cache between them that is empty at first.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import measure, programs, results
from mtnet_jax import models
from mtnet_jax.devices import host_memory

# The seconds of a start that nobody minds waiting.
_LIMITS = {'first start': 60.0, 'start from the cache': 10.0}


def main(
  name: str,
  frames: str,
  size: str,
  clips: str = '1',
  steps: str = '0',
  *fields: str,
) -> None:
  """Prints what tracing, compiling and running take in this process."""
  overrides = dict(field.split('=') for field in fields)
  overrides = {key: json.loads(value) for key, value in overrides.items()}
  model = models.build(name, programs.CLASSES, **overrides)
  shape = (int(frames), int(size), int(size), 3)
  program = programs.train_step(model, shape, int(clips))
  before = time.perf_counter()
  lowered = program.function.lower(*program.arguments)
  between = time.perf_counter()
  compiled = lowered.compile()
  after = time.perf_counter()
  found = {'trace': between - before, 'compile': after - between}
  found['temporary'] = compiled.memory_analysis().temp_size_in_bytes
  found['step'] = _step(program, compiled, int(steps))
  print(json.dumps(found))


def _step(program, compiled, steps):
  """Returns the median seconds of the steps, after one that is not timed."""
  if not steps:
    return None
  run = program.start(compiled)
  return measure.race({'': run}, seconds=0, least=steps)[''].median


def rows(
  model: str = 'mtnet_l', clip: tuple[int, int] = (16, 256)
) -> list[results.Row]:
  """Compiles twice, and returns a row of each time, beside its limit.

  Args:
    model: one of `models.NAMES`.
    clip: frames, and height and width in pixels; one a step.
  """
  frames, size = clip
  command = [sys.executable, '-m', 'benchmarks.compilation']
  command += [model, str(frames), str(size)]
  found = []
  with tempfile.TemporaryDirectory() as cache:
    environment = os.environ | {
      'JAX_COMPILATION_CACHE_DIR': cache,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    for start, limit in _LIMITS.items():
      child = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
      )
      cost = json.loads(child.stdout)
      found.append(
        results.Row(
          work=f'{model} train step, compilation, {start}',
          shape=f'1×{frames}×{size}²',
          precision='float32',
          ours=cost['trace'] + cost['compile'],
          unit='s',
          peers={'limit': limit},
          goals={'limit': 1.0},
          note=f'tracing {cost["trace"]:.1f} s, '
          f'compiling {cost["compile"]:.1f} s',
        )
      )
  return found


if __name__ == '__main__':
  host_memory.keep_freed_memory()
  main(*sys.argv[1:])
