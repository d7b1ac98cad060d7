"""Compiles one program for devices that are not at hand; reads the result.

  python -m benchmarks.ahead_of_time ROW FILE

ROW is an `estimates.Row` as JSON; the last line printed is JSON too: what
`estimates.figures` finds. The compiled program stays in FILE, `….gz`; where it
is there, it is read again rather than compiled. A compiler may end this
process: `benchmarks.accelerators` starts one for each row.
"""

import gzip
import json
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import estimates, programs
from benchmarks.estimates import Compiled, Row
from configs import base
from mtnet_jax import files, models
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.devices import targets
from mtnet_jax.evaluation import scoring
from mtnet_jax.training import dry_run


def lower(row: Row, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
  """Returns a row's program, as `train.py` or `predict.py` would run it.

  Args:
    row: what to lower; its target is not looked at.
    devices: the program's devices, all of one kind.

  Raises:
    RuntimeError: the program calls kernels that only a CPU has.
  """
  mesh = mesh_lib.make_mesh(devices=devices)
  model = models.build(
    row.network,
    programs.CLASSES,
    dtype='bfloat16',
    norm_batch_size=row.clips,
    rematerialize=row.rematerialize,
  )
  frames, size = models.DEFAULT_CLIPS[row.network]
  shape = (frames, size, size, 3)
  clips = row.clips * mesh.size
  if row.program == 'train':
    config = base.get_config()
    built = dry_run.train_step(config, model, shape, clips, mesh)
  else:
    built = _inference(model, shape, clips, mesh)
  function, arguments = built
  lowered = function.lower(*arguments)
  if mesh.devices.flat[0].platform != 'cpu' and (
    'mtnet_jax_' in lowered.as_text()
  ):
    raise RuntimeError("A program for an accelerator calls a CPU's kernels.")
  return lowered


def _inference(model: nn.Module, shape, clips, mesh):
  """Returns the function, and abstract arrays of the variables and clips."""
  variables = jax.eval_shape(
    model.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *shape), jnp.float32),
  )
  whole = mesh_lib.replicated(mesh)
  variables = jax.tree.map(lambda leaf: leaf.update(sharding=whole), variables)
  clips = jax.ShapeDtypeStruct(
    (clips, *shape), jnp.uint8, sharding=mesh_lib.split_batch(mesh)
  )
  return scoring.make_eval_step(model, mesh), (variables, clips)


def compile_row(row: Row, devices: Sequence[jax.Device]) -> Compiled:
  """Lowers and compiles a row's program; arguments as those of `lower`."""
  start = time.perf_counter()
  lowered = lower(row, devices)
  between, cpu = time.perf_counter(), time.process_time()
  compiled = lowered.compile()
  seconds = {
    'lower': between - start,
    'compile': time.perf_counter() - between,
    'compile_cpu': time.process_time() - cpu,
  }
  memory = compiled.memory_analysis()
  needed = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    - memory.alias_size_in_bytes
  )
  return Compiled(
    compiled.as_text(),
    {name: round(value, 1) for name, value in seconds.items()},
    {'needed': needed, 'peak': memory.peak_memory_in_bytes},
  )


def main(text: str, path: str) -> None:
  """Prints a row's figures, as JSON on the last line.

  Args:
    text: the `Row`, as JSON.
    path: where the compiled program is kept, or is to be.
  """
  row, path = Row(**json.loads(text)), pathlib.Path(path)
  if path.exists():
    head, _, text = gzip.decompress(path.read_bytes()).decode().partition('\n')
    compiled = Compiled(text, **json.loads(head))
  else:
    compiled = compile_row(row, targets.devices(row.target))
    head = {'seconds': compiled.seconds, 'memory': compiled.memory}
    content = f'{json.dumps(head)}\n{compiled.text}'.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
      partial.write_bytes(gzip.compress(content))
  print(json.dumps(estimates.figures(row, compiled)))


if __name__ == '__main__':
  main(*sys.argv[1:])
