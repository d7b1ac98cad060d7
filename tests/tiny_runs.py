"""Runs so small that a step takes milliseconds."""

import pathlib
import subprocess
import sys
import time

import ml_collections

from configs import quickstart
from mtnet_jax.runs import metric_writer

# The quick start on four frames of 32 x 32.
TINY = {
  'data.num_frames': 4,
  'data.frame_stride': 2,
  'data.short_side': 32,
  'data.crop_size': 32,
  'data.input_size': 32,
  'data.num_workers': 0,
  # Not 'cosine': another length would be another program to compile.
  'optim.schedule': 'step',
  'optim.warmup_steps': 2,
  'train.batch_size': 4,
  'train.num_steps': 12,
  'train.log_every': 1,
  'train.eval_every': 6,
  'train.checkpoint_every': 1,
  'eval.num_clips': 2,
  'eval.num_crops': 3,
  'eval.crop_size': 32,
  'eval.input_size': 32,
  'eval.clips_per_step': 4,
}
# Without MTConv's second branch and recurrence it compiles five times faster.
LIGHT = {'model.local_ratio': 1.0, 'model.recurrence': False}


def tiny_config(
  directory, light: bool = True, **changes
) -> ml_collections.ConfigDict:
  """Returns the quick start's configuration made tiny.

  Args:
    directory: `data.dir`.
    light: whether to leave out what takes long to compile, too.
    **changes: other keys, their dots written as two underscores.
  """
  config = quickstart.get_config()
  config.update_from_flattened_dict(TINY | (LIGHT if light else {}))
  config.data.dir = str(directory)
  config.update_from_flattened_dict(dotted(changes))
  return config


def tiny_flags(directory, light: bool = False, **changes) -> list[str]:
  """Returns the same as flags of a command line, without `--config` itself."""
  values = TINY | (LIGHT if light else {}) | {'data.dir': directory}
  values |= dotted(changes)
  return [f'--config.{name}={value}' for name, value in values.items()]


def dotted(changes: dict) -> dict:
  """Returns the keys with dots in the place of two underscores."""
  return {name.replace('__', '.'): value for name, value in changes.items()}


def start(root, workdir, arguments, log=subprocess.PIPE):
  """A process that trains the quick start."""
  return subprocess.Popen(
    [
      sys.executable,
      'train.py',
      '--config=configs/quickstart.py',
      f'--workdir={workdir}',
      *arguments,
    ],
    cwd=root,
    stderr=log,
    text=True,
  )


def last_logged(workdir) -> int:
  """The last step of which there are figures."""
  records = metric_writer.read(pathlib.Path(workdir) / 'metrics.jsonl')
  return max((record['step'] for record in records), default=0)


def wait_for_step(process, workdir, step):
  """Until this process, not an earlier one, has logged `step`."""
  at_start = last_logged(workdir)
  while process.poll() is None and last_logged(workdir) < max(
    step, at_start + 1
  ):
    time.sleep(0.02)
