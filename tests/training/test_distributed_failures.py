"""Of several processes one fails, or is asked to stop."""

import os
import re
import shutil
import signal
import socket
import time

import pytest

from mtnet_jax.runs import lock
from tests.distributed_runs import finish, start, train, wait_for_step


@pytest.mark.slow
def test_a_process_that_dies_is_named_by_the_other(
  root, blinking_videos, tmp_path
):
  processes = start(root, blinking_videos, tmp_path, 2, train__num_steps=10**6)
  wait_for_step(processes, tmp_path, 3)
  processes[1].kill()
  died = time.monotonic()
  logs, codes = finish(processes)
  assert codes == [os.EX_TEMPFAIL, -signal.SIGKILL], logs
  # No timing of ours: a bound, beyond which it would count as hanging.
  assert time.monotonic() - died < 120
  name = f'process 1 on {socket.gethostname()} ({processes[1].pid}) is gone'
  assert name in logs[0] and 'resumes from the last checkpoint' in logs[0]


@pytest.mark.parametrize(
  'number',
  [
    pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.check),
  ],
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(
  root, blinking_videos, tmp_path, number
):
  changes = {'train__checkpoint_every': 0}
  processes = start(
    root, blinking_videos, tmp_path, 2, train__num_steps=10**6, **changes
  )
  wait_for_step(processes, tmp_path, 1)
  processes[1].send_signal(number)
  logs, codes = finish(processes)
  assert codes == [os.EX_TEMPFAIL] * 2, logs
  (step,) = os.listdir(tmp_path / 'checkpoints')
  told = f'Stopped by {number.name} at step {step};'
  assert all(told in log for log in logs), logs


@pytest.mark.check
def test_a_disk_that_is_full_for_one_process_ends_both(
  root, blinking_videos, small_disk
):
  processes = start(
    root, blinking_videos, small_disk, 2, train__num_steps=10**6
  )
  wait_for_step(processes, small_disk, 2)
  with pytest.raises(OSError), (small_disk / 'filler').open('wb') as file:
    while True:
      file.write(bytes(2**12))
      file.flush()
  logs, codes = finish(processes)
  assert codes == [2, 2], logs
  assert 'No space left' in ''.join(logs)


@pytest.mark.slow
def test_a_folder_that_another_training_holds_is_told_by_all(
  root, blinking_videos, tmp_path
):
  with lock.hold(tmp_path):
    processes = start(root, blinking_videos, tmp_path, 2)
    logs, codes = finish(processes)
  assert codes == [2, 2], logs
  reason = f'is held by another training, process {os.getpid()} on'
  assert all(reason in log for log in logs), logs


@pytest.mark.parametrize(
  'differs',
  [
    pytest.param('rate', marks=pytest.mark.slow),
    pytest.param('class', marks=pytest.mark.check),
  ],
)
def test_processes_that_disagree_end_before_the_first_step(
  root, blinking_videos, tmp_path, differs
):
  data, other = tmp_path / 'data', tmp_path / 'other'
  for folder in (data, other):
    shutil.copytree(blinking_videos, folder)
  # The folder may be another, as long as it holds the same.
  own = [f'--config.data.dir={other}']
  if differs == 'rate':
    own += ['--config.optim.learning_rate=0.125']
    wanted = '--config.optim.learning_rate is 0.06 in process 0 and 0.125 in'
  else:
    for split in ('train', 'val', 'test'):
      (other / split / 'dark').rename(other / split / 'night')
    wanted = 'class 1 is dark in process 0 and night in process 1'
  processes = start(root, data, tmp_path / 'run', 2, own_flags=own)
  logs, codes = finish(processes)
  assert codes == [2, 2], logs
  assert all(wanted in log for log in logs), logs
  assert not (tmp_path / 'run/config.json').exists()


@pytest.mark.check
@pytest.mark.parametrize('file', ['metrics/metrics', 'variables'])
def test_a_damaged_checkpoint_ends_an_evaluation_at_once(
  root, blinking_videos, tmp_path, file
):
  """Process 0 alone looks; the other must not wait for it meanwhile."""
  settings = {
    'train__num_steps': 3,
    'train__validation_split': 'val',
    'train__eval_every': 1,
    'eval__num_clips': 1,
    'eval__num_crops': 1,
  }
  train(root, blinking_videos, tmp_path, 1, **settings)
  for path in (tmp_path / 'checkpoints').glob(f'*/{file}'):
    if path.is_dir():
      path = max(path.rglob('d/*'), key=lambda found: found.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
  processes = start(
    root, blinking_videos, tmp_path, 2, program=('eval.py',), **settings
  )
  ended = []
  for process in reversed(processes):
    process.wait()
    ended.append(time.monotonic())
  logs, codes = finish(processes)
  assert codes == [2, 2], logs
  said = [
    re.search('The checkpoint of step .* is damaged: .*', x) for x in logs
  ]
  assert said[0][0] == said[1][0]
  # Process 0, which the others talk through, ends last.
  assert ended[1] - ended[0] < 12
  assert not any('gone' in log for log in logs), logs


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


@pytest.mark.check
def test_a_loader_that_stalls_is_named_by_all(root, blinking_videos, tmp_path):
  processes = start(
    root,
    blinking_videos,
    tmp_path,
    2,
    program=('-c', _STALLS),
    # Also what one waits while the other compiles, twice as long.
    train__stall_timeout=30,
  )
  logs, codes = finish(processes)
  assert codes == [os.EX_TEMPFAIL] * 2, logs
  reason = (
    f'process 1 on {socket.gethostname()} ({processes[1].pid}) has been '
    'waiting for its loader for'
  )
  assert all(reason in log and 'at step 5' in log for log in logs), logs
