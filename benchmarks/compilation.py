"""How long the largest network's train step takes to compile.

    python -m benchmarks.compilation NAME FRAMES SIZE

Prints the seconds of one start, as JSON: `trace` until XLA has the program, and
`compile` until it can run. `rows` starts that twice, in processes of their own
with a compilation cache between them that is empty at first.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import programs, results

# Of a start, the seconds that nobody minds waiting.
_LIMITS = {'first start': 60.0, 'start from the cache': 10.0}


def main(name: str, frames: int, size: int) -> None:
  """Prints how long tracing and compiling take in this process."""
  program = programs.train_step(name, 1, (frames, size))
  before = time.perf_counter()
  lowered = program.function.lower(*program.arguments)
  between = time.perf_counter()
  lowered.compile()
  after = time.perf_counter()
  print(json.dumps({'trace': between - before, 'compile': after - between}))


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
      seconds = json.loads(child.stdout)
      found.append(
        results.Row(
          work=f'{model} train step, compilation, {start}',
          shape=f'1×{frames}×{size}²',
          precision='float32',
          ours=sum(seconds.values()),
          unit='s',
          peers={'limit': limit},
          goals={'limit': 1.0},
          note=f'tracing {seconds["trace"]:.1f} s, '
          f'compiling {seconds["compile"]:.1f} s',
        )
      )
  return found


if __name__ == '__main__':
  main(sys.argv[1], *map(int, sys.argv[2:]))
