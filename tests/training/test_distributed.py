"""Several processes, and several devices, train like one."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mtnet_jax.runs import metric_writer
from tests.checkpoint_files import stored_leaves
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


def _start(
  root,
  videos,
  workdir,
  count,
  devices=1,
  program=('train.py',),
  light=True,
  **changes,
):
  """The processes of one run, with `devices` each."""
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
      ],
      cwd=root,
      # Process 0 alone writes the cache; what it has does not fit the others.
      env=environment | {'JAX_ENABLE_COMPILATION_CACHE': str(index == 0)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]


def _train(*args, **kwargs):
  processes = _start(*args, **kwargs)
  logs = [process.communicate()[1] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(logs), logs
  return logs


def _differences(workdir, other, step=5):
  """The largest difference of each array, as a share of its largest value."""
  leaves, others = (stored_leaves(w, step) for w in (workdir, other))
  assert leaves.keys() == others.keys()
  return {
    name: np.abs(leaf - others[name]).max() / max(np.abs(leaf).max(), 1e-12)
    for name, leaf in leaves.items()
    if leaf.size
  }


@pytest.fixture(scope='module')
def alone(root, blinking_videos, tmp_path_factory):
  """The workdir of one process on one device."""
  workdir = tmp_path_factory.mktemp('alone')
  _train(root, blinking_videos, workdir, 1, light=False)
  leaves = stored_leaves(workdir, 5)
  assert {str(leaf.dtype) for leaf in leaves.values()} == {'float64', 'int32'}
  return workdir


@pytest.fixture(scope='module')
def alone_and_light(root, blinking_videos, tmp_path_factory):
  """Likewise, of the light network."""
  workdir = tmp_path_factory.mktemp('alone_and_light')
  _train(root, blinking_videos, workdir, 1)
  return workdir


# Of the whole network, which takes long to compile, two processes with four
# devices; of the light one, four processes.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
  ('count', 'devices', 'other'),
  [
    (2, 1, 'alone_and_light'),
    pytest.param(2, 1, 'alone', marks=pytest.mark.slow),
    pytest.param(2, 2, 'alone', marks=pytest.mark.slow),
    pytest.param(4, 1, 'alone_and_light', marks=pytest.mark.slow),
  ],
)
def test_several_processes_train_like_one(
  root, blinking_videos, count, devices, other, request, tmp_path
):
  light = other == 'alone_and_light'
  alone = request.getfixturevalue(other)
  logs = _train(root, blinking_videos, tmp_path, count, devices, light=light)
  differences = _differences(alone, tmp_path)
  assert max(differences.values()) < 1e-5, differences
  # One logger: of the others nothing is in the log.
  assert 'Compiling for clips' in logs[0]
  assert not any('Compiling for clips' in log for log in logs[1:])
  losses, expected = (
    {
      r['step']: r['train/loss']
      for r in metric_writer.read(w / 'metrics.jsonl')
    }
    for w in (tmp_path, alone)
  )
  assert losses == pytest.approx(expected, rel=1e-5) and len(losses) == 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_split_parameters_train_like_whole_ones(
  root, blinking_videos, alone, tmp_path
):
  _train(root, blinking_videos, tmp_path, 1, 8, light=False, mesh__fsdp=4)
  differences = _differences(alone, tmp_path)
  assert max(differences.values()) < 1e-5, differences


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes_and_with_fewer_again(
  root, blinking_videos, alone_and_light, tmp_path
):
  changing = tmp_path / 'changing'
  for count, steps in ((1, 3), (4, 4), (1, 5)):
    logs = _train(
      root, blinking_videos, changing, count, train__num_steps=steps
    )
    if steps > 3:
      before = steps - 1
      assert f'Going on from the checkpoint of step {before}' in logs[0]
  differences = _differences(alone_and_light, changing)
  assert max(differences.values()) < 1e-5, differences


def _wait_for_step(processes, workdir, step):
  while all(process.poll() is None for process in processes):
    records = metric_writer.read(workdir / 'metrics.jsonl')
    if records and records[-1]['step'] >= step:
      return
    time.sleep(0.1)


def _finish(processes):
  logs = [process.communicate()[1] for process in processes]
  return logs, [process.returncode for process in processes]


def test_a_process_that_dies_is_named_by_the_other(
  root, blinking_videos, tmp_path
):
  processes = _start(root, blinking_videos, tmp_path, 2, train__num_steps=10**6)
  _wait_for_step(processes, tmp_path, 3)
  processes[1].kill()
  died = time.monotonic()
  logs, codes = _finish(processes)
  assert codes == [os.EX_TEMPFAIL, -signal.SIGKILL], logs
  # No timing of ours: a bound, beyond which it would count as hanging.
  assert time.monotonic() - died < 120
  name = f'process 1 on {socket.gethostname()} ({processes[1].pid}) is gone'
  assert name in logs[0] and 'goes on from the last checkpoint' in logs[0]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_at_the_same_step(
  root, blinking_videos, tmp_path
):
  changes = {'train__checkpoint_every': 0}
  processes = _start(
    root, blinking_videos, tmp_path, 2, train__num_steps=10**6, **changes
  )
  _wait_for_step(processes, tmp_path, 1)
  processes[1].send_signal(signal.SIGTERM)
  logs, codes = _finish(processes)
  assert codes == [os.EX_TEMPFAIL] * 2, logs
  (step,) = os.listdir(tmp_path / 'checkpoints')
  assert all(f'Stopped by SIGTERM at step {step};' in log for log in logs), logs


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_process_ends_both(
  root, blinking_videos, small_disk
):
  processes = _start(
    root, blinking_videos, small_disk, 2, train__num_steps=10**6
  )
  _wait_for_step(processes, small_disk, 2)
  with pytest.raises(OSError), (small_disk / 'filler').open('wb') as file:
    while True:
      file.write(bytes(2**12))
      file.flush()
  logs, codes = _finish(processes)
  assert codes == [2, 2], logs
  assert 'No space left' in ''.join(logs)


_STALLS = """
import sys, time
from absl import app, flags
from mtnet_jax.data.batches import TrainingBatches

plain = TrainingBatches.__getitem__

def stall(self, step):
  if step == 4 and self.process_index == 1:
    time.sleep(600)
  return plain(self, step)

TrainingBatches.__getitem__ = stall
sys.argv[0] = 'train.py'
from mtnet_jax import cli
from mtnet_jax.commands import train
cli.run(train.COMMAND)
"""


@pytest.mark.slow
def test_a_loader_that_stalls_is_named_by_all(root, blinking_videos, tmp_path):
  processes = _start(
    root,
    blinking_videos,
    tmp_path,
    2,
    program=('-c', _STALLS),
    # Also what one waits while the other compiles, twice as long.
    train__stall_timeout=30,
  )
  logs, codes = _finish(processes)
  assert codes == [os.EX_TEMPFAIL] * 2, logs
  reason = (
    f'process 1 on {socket.gethostname()} ({processes[1].pid}) has been '
    'waiting for its loader for'
  )
  assert all(reason in log and 'at step 5' in log for log in logs), logs
