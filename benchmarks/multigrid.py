"""Measures the time to the same held-out accuracy, with and without multigrid.

  python -m data.stick_figures.prepare --out=DATA
  python -m benchmarks.multigrid --data=DATA --out=DIR

Trains one network twice from the same start, clips of 16 x 112^2: with the long
and the short cycle, and with the base shape in every step. A run that is there
already is not trained again. Prints the validation accuracy after so many
seconds of training (compilation, validation and saving apart), the seconds to
each accuracy, the time of a step of every shape, measured at the end one after
the other, and what the seconds to each accuracy would be of those alone.

The videos are first coded frame by frame (`coded_frames`).
"""

import pathlib
import statistics
import time
from collections.abc import Sequence

from absl import flags

from configs import quickstart
from mtnet_jax import cli

_ACCURACIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_REPEATS = 5


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'data',
    None,
    'Folder of the videos, a data set such as data.stick_figures.prepare '
    'makes.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the runs to.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_float(
    'epochs',
    16.0,
    'Number of epochs of the run without multigrid.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'multigrid_epochs',
    52.0,
    'Number of epochs of the run with multigrid.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'batch',
    8,
    'Number of clips of a step at the base shape.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Trains with and without multigrid, and prints the ratios."""
  # Not above: a mistake in the flags is told before jax is loaded.
  from benchmarks import coded_frames
  from mtnet_jax.data import pipeline
  from mtnet_jax.devices import host_memory
  from mtnet_jax.runs import metric_writer
  from mtnet_jax.training import loop

  host_memory.keep_freed_memory()
  out = pathlib.Path(values.out)
  data = coded_frames.write(values.data, ('train', 'val'), out / 'frames')
  configs = {
    'multigrid': _config(
      data, values.multigrid_epochs, values.batch, cycles=True
    ),
    'base': _config(data, values.epochs, values.batch, cycles=False),
  }
  curves, shapes = {}, {}
  for name, config in configs.items():
    workdir = out / name
    loop.train(config, workdir)
    curves[name] = _curve(metric_writer.read(workdir / 'metrics.jsonl'))
    shapes[name] = pipeline.build(config, 'train').multigrid.shape
    print(f'{name}: {config.train.num_epochs:g} epochs')
    for step, seconds, accuracy in curves[name]:
      print(f'  {step:6d} steps {seconds:7.0f} s  {accuracy:.3f}')
  print('loading on the same cores:')
  _print_ratios(curves)

  print('(b, t, h, w)          s a step  clips a second')
  times = {}
  for shape, seconds in _step_times(configs['multigrid']):
    times[shape] = seconds
    print(f'{shape!s:21} {seconds:8.3f} {shape[0] / seconds:15.1f}')
  print('those times alone, as if clips came from elsewhere:')
  _print_ratios(
    {
      name: [
        (step, sum(times[shapes[name](k)] for k in range(step)), accuracy)
        for step, _, accuracy in curve
      ]
      for name, curve in curves.items()
    }
  )


def _print_ratios(curves):
  """The seconds to each accuracy that both runs reached."""
  print('accuracy  base, s  multigrid, s  ratio')
  for accuracy in _ACCURACIES:
    base, multigrid = (
      _time_to(accuracy, curves[name]) for name in ('base', 'multigrid')
    )
    if base is not None and multigrid is not None:
      print(
        f'{accuracy:8.1f} {base:8.0f} {multigrid:13.0f} {base / multigrid:6.2f}'
      )


def _step_times(config):
  """Every shape of the multigrid, the base shape last, and seconds a step."""
  # Not above: a mistake in the flags is told before jax is loaded.
  import jax
  import numpy as np
  import optax

  from mtnet_jax.data import pipeline
  from mtnet_jax.devices import mesh as mesh_lib
  from mtnet_jax.runs import model as model_lib
  from mtnet_jax.runs import state as state_lib
  from mtnet_jax.training.step import make_train_step

  dataset = pipeline.build(config, 'train')
  model = model_lib.build_model(
    config, len(dataset.labels), norm_batch_size=config.train.batch_size
  )
  tx = optax.sgd(0.01, momentum=0.9)
  clip_shape = model_lib.training_clip_shape(config)
  state = jax.jit(lambda: state_lib.create(model, tx, clip_shape, 0))()
  mesh = mesh_lib.make_mesh()
  step = make_train_step(model, lambda _: 0.01, tx, 0, mesh)
  for shape in dataset.multigrid.shapes():
    batch = {
      'clips': np.zeros((*shape, 3), np.uint8),
      'labels': np.zeros(shape[0], np.int32),
    }
    batch = mesh_lib.to_devices(batch, mesh)
    times = []
    for _ in range(_REPEATS + 1):
      start = time.monotonic()
      state, metrics = step(state, batch)
      jax.block_until_ready(metrics)
      times.append(time.monotonic() - start)
    yield shape, statistics.median(times[1:])


def _config(data: str, epochs: float, batch: int, cycles: bool):
  """The quick start at 16 x 112^2, without MTConv's second branch.

  Without it a shape is compiled in seconds rather than minutes.
  """
  config = quickstart.get_config()
  config.data.dir = data
  config.data.num_frames = 16
  config.data.frame_stride = 3
  config.data.short_side = 120
  config.data.crop_size = config.eval.crop_size = 112
  config.data.input_size = config.eval.input_size = 112
  config.model.local_ratio = 1.0
  config.model.recurrence = False
  config.train.batch_size = batch
  config.train.num_epochs = epochs
  config.train.long_cycle = config.train.short_cycle = cycles
  config.train.precise_norm_steps = 80 // batch
  config.train.log_every = 12
  # About as many seconds apart with either.
  config.train.eval_every = (72 if cycles else 144) * 8 // batch
  config.train.checkpoint_every = 144
  config.eval.clips_per_step = 20
  return config


def _curve(records: list[dict]) -> list[tuple[int, float, float]]:
  """Steps, seconds of training and validation accuracy after them."""
  seconds, points = 0.0, []
  for record in records:
    seconds += record.get('train/seconds', 0.0)
    if 'val/top1' in record:
      points.append((record['step'], seconds, record['val/top1']))
  return points


def _time_to(
  accuracy: float, curve: list[tuple[int, float, float]]
) -> float | None:
  return next((s for _, s, reached in curve if reached >= accuracy), None)


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
