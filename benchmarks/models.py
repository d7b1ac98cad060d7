"""Measures the cost of each network: python -m benchmarks.models [NAME ...].

Parameters and multiply-adds of a clip; seconds to compile its train step and to
run it on one clip here, and the run's ratio to x3d_m on the same clip in the
same run. The compilation cache is off. Clips are those of
`models.DEFAULT_CLIPS`, but for the training step at most 8 frames of 112², so
that the largest network fits a small machine.
"""

import sys
import time

import jax

from benchmarks import measure, programs
from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.devices import host_memory

NAMES = (
  'x3d_m', 'mtnet_xs', 'mtnet_s', 'mtnet_m', 'mtnet_l', 'x3d_s', 'x3d_l',
  'r3d_34', 'r3d_50', 'r2plus1d_34', 'srtg_r3d_34', 'srtg_r2plus1d_34',
)  # fmt: skip


def main(names: list[str]) -> None:
  """Prints a line a network."""
  jax.config.update('jax_enable_compilation_cache', False)
  host_memory.keep_freed_memory()
  print(
    '| network | parameters | GMACs | clip | compile, s | step, s | ratio |'
  )
  print('| --- | --- | --- | --- | --- | --- | --- |', flush=True)
  reference = {}
  for name in names or NAMES:
    frames, size = models.DEFAULT_CLIPS[name]
    model = models.build(name, programs.CLASSES)
    shape = (frames, size, size, 3)
    parameters = cost.parameter_count(model, shape)
    macs = cost.macs(model, shape) / 1e9
    clip = min(frames, 8), min(size, 112)
    seconds = _train_step(model, clip)
    if clip not in reference:
      own = models.build('x3d_m', programs.CLASSES)
      own = seconds if name == 'x3d_m' else _train_step(own, clip)
      reference[clip] = own[1]
    ratio = seconds[1] / reference[clip]
    print(
      f'| {name} | {parameters:,} | {macs:.2f} | {frames}×{size}² | '
      f'{seconds[0]:.1f} | {seconds[1]:.3f} | {ratio:.2f} |',
      flush=True,
    )


def _train_step(model, clip: tuple[int, int]) -> tuple[float, float]:
  """Seconds to compile, and the median to run, a step on one clip."""
  frames, size = clip
  program = programs.train_step(model, (frames, size, size, 3), 1)
  start = time.monotonic()
  compiled = program.compile()
  compiling = time.monotonic() - start
  times = measure.race({'ours': program.start(compiled)}, seconds=0.0)
  return compiling, times['ours'].median


if __name__ == '__main__':
  main(sys.argv[1:])
