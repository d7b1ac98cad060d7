"""Runs an exported program where there are jax and numpy alone.

Started as a file, `python -I run_alone.py PROGRAM CLIPS.npy RESULTS.npz`: it
reads clips and writes the program's logits for the first one and for all of
them, and the median time that one takes. Ends with code 1 if a module was
imported that the program should not need.
"""

import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import export

_CALLS = 5
_NOT_NEEDED = {'flax', 'grain', 'mtnet_jax', 'optax', 'orbax'}


def milliseconds(run: Callable[[Any], Any], clip: Any) -> float:
  """Returns the median time of a call, after one that compiles.

  Args:
    run: a function that returns JAX arrays.
    clip: the program's argument.
  """
  times = []
  jax.block_until_ready(run(clip))
  for _ in range(_CALLS):
    start = time.perf_counter()
    jax.block_until_ready(run(clip))
    times.append(1000 * (time.perf_counter() - start))
  return statistics.median(times)


def main(program: str, clips: str, results: str) -> None:
  """Runs the program of one file on the clips of another.

  Args:
    program: path of `model.stablehlo`.
    clips: path of an `.npy` file, uint8 `(b, t, s, s, 3)`.
    results: path of an `.npz` file to write: `one` `(1, k)`, `all` `(b, k)` and
      `milliseconds`.
  """
  exported = export.deserialize(bytearray(pathlib.Path(program).read_bytes()))
  run, batch = jax.jit(exported.call), np.load(clips)
  np.savez(
    results,
    one=run(batch[:1])[0],
    all=run(batch)[0],
    milliseconds=milliseconds(run, batch[:1]),
  )
  found = _NOT_NEEDED & {name.partition('.')[0] for name in sys.modules}
  if found:
    sys.exit(f'{", ".join(sorted(found))} was imported')


if __name__ == '__main__':
  main(*sys.argv[1:])
