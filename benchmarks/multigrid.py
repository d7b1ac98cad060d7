"""Wall time to the same held-out accuracy, with multigrid and without.

  python -m data.stick_figures.prepare --out=DATA
  python -m benchmarks.multigrid --data=DATA --out=DIR

Trains one network twice from the same start: clips of 16 x 112^2, long and
short cycle against the base shape in every step, the same schedule over the
same number of steps' worth of samples each. A run that is there already is not
trained again. Prints clips a second of every shape, the validation accuracy
after so many seconds of training (compilation, validation and saving apart),
and the seconds to each accuracy.
"""

import pathlib

from absl import flags

from configs import quickstart
from mtnet_jax import cli

_DATA = flags.DEFINE_string('data', None, 'Videos.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder of the runs.', required=True)
_EPOCHS = flags.DEFINE_float('epochs', 8.0, 'Of the run without multigrid.')
_MULTIGRID_EPOCHS = flags.DEFINE_float('multigrid_epochs', 16.0, 'With it.')
_ACCURACIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_BATCH = 8


def main(_) -> None:
  from mtnet_jax import metric_writer, training

  curves = {}
  for name, epochs in (
    ('multigrid', _MULTIGRID_EPOCHS.value),
    ('base', _EPOCHS.value),
  ):
    workdir = pathlib.Path(_OUT.value) / name
    config = _config(epochs, cycles=name == 'multigrid')
    training.train(config, workdir)
    curves[name] = _curve(metric_writer.read(workdir / 'metrics.jsonl'))
    print(f'{name}: {epochs:g} epochs')
    for seconds, accuracy in curves[name]:
      print(f'  {seconds:7.0f} s  {accuracy:.3f}')
  print('accuracy  base, s  multigrid, s  ratio')
  for accuracy in _ACCURACIES:
    times = [_time_to(accuracy, curves[name]) for name in ('base', 'multigrid')]
    if None not in times:
      print(
        f'{accuracy:8.1f} {times[0]:8.0f} {times[1]:13.0f} '
        f'{times[0] / times[1]:6.2f}'
      )


def _config(epochs: float, cycles: bool):
  """The quick start at 16 x 112^2, without MTConv's second branch.

  Without it a shape is compiled in seconds rather than minutes.
  """
  config = quickstart.get_config()
  config.data.dir = _DATA.value
  config.data.num_frames = 16
  config.data.frame_stride = 3
  config.data.short_side = 120
  config.data.crop_size = config.eval.crop_size = 112
  config.data.input_size = config.eval.input_size = 112
  config.model.local_ratio = 1.0
  config.model.recurrence = False
  config.train.batch_size = _BATCH
  config.train.num_epochs = epochs
  config.train.long_cycle = config.train.short_cycle = cycles
  config.train.precise_norm_steps = 10
  config.train.log_every = 12
  config.train.eval_every = 72 if cycles else 144
  config.train.checkpoint_every = 144
  config.eval.clips_per_step = 20
  return config


def _curve(records: list[dict]) -> list[tuple[float, float]]:
  """Seconds of training and validation accuracy after them."""
  seconds, points = 0.0, []
  for record in records:
    seconds += record.get('train/seconds', 0.0)
    if 'val/top1' in record:
      points.append((seconds, record['val/top1']))
  return points


def _time_to(accuracy: float, curve: list[tuple[float, float]]) -> float | None:
  return next((s for s, reached in curve if reached >= accuracy), None)


if __name__ == '__main__':
  cli.run(main)
