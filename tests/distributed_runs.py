"""Tiny runs of several processes."""

import os
import socket
import subprocess
import sys
import time

from mtnet_jax.runs import metric_writer
from tests.tiny_runs import LIGHT, dotted

# The quick start with its own clips, fewer of them, and the statistics of two
# clips whatever the devices. In float64, since rounding can change which frames
# are selected.
_FLAGS = {
  'model.dtype': 'float64',
  'data.num_workers': 0,
  'train.batch_size': 16,
  'train.norm_batch_size': 2,
  'train.log_every': 1,
  'train.validation_split': '',
  'train.checkpoint_every': 1,
  # Another length of a cosine would be another program to compile.
  'optim.schedule': 'step',
  'optim.warmup_steps': 2,
}


def start(
  root,
  videos,
  workdir,
  count,
  devices=1,
  program=('train.py',),
  light=True,
  own_flags=(),
  **changes,
):
  """The processes of one run, with `devices` each.

  `own_flags` are given to the last of them alone.
  """
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  values = _FLAGS | {'data.dir': videos, 'train.num_steps': 5}
  values |= LIGHT if light else {}
  values |= dotted(changes)
  arguments = [f'--config.{name}={value}' for name, value in values.items()]
  environment = os.environ | {
    'JAX_ENABLE_X64': '1',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
  }
  several = [f'--coordinator=localhost:{port}', f'--num_processes={count}']
  return [
    subprocess.Popen(
      [
        sys.executable,
        *program,
        '--config=configs/quickstart.py',
        f'--workdir={workdir}',
        *arguments,
        *([*several, f'--process_id={index}'] if count > 1 else []),
        *(own_flags if index == count - 1 else ()),
      ],
      cwd=root,
      # Process 0 alone writes the cache; what it has does not fit the others.
      env=environment | {'JAX_ENABLE_COMPILATION_CACHE': str(index == 0)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]


def train(*args, **kwargs):
  """Runs them to their end; their logs."""
  processes = start(*args, **kwargs)
  logs = [process.communicate()[1] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(logs), logs
  return logs


def wait_for_step(processes, workdir, step):
  """Waits until the run has logged the step, or a process has ended."""
  while all(process.poll() is None for process in processes):
    records = metric_writer.read(workdir / 'metrics.jsonl')
    if records and records[-1]['step'] >= step:
      return
    time.sleep(0.1)


def finish(processes):
  """Waits for all; their logs and their exit codes."""
  logs = [process.communicate()[1] for process in processes]
  return logs, [process.returncode for process in processes]
