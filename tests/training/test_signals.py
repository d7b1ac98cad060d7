"""A training that is killed, stopped, or loses a process of its loader."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mtnet_jax.runs import metric_writer
from mtnet_jax.training import loop
from tests import tiny_runs
from tests.checkpoint_files import stored_bytes
from tests.tiny_runs import tiny_config, tiny_flags


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
  ('kills', 'steps'),
  [
    pytest.param(2, 12, marks=pytest.mark.slow),
    pytest.param(10, 60, marks=pytest.mark.check),
  ],
)
def test_runs_killed_at_any_moment_end_bit_for_bit_like_a_whole_one(
  root, blinking_videos, tmp_path, kills, steps
):
  whole, workdir = tmp_path / 'whole', tmp_path / 'killed'
  changes = {'train__num_steps': steps, 'data__num_workers': 1}
  loop.train(tiny_config(blinking_videos, **changes), whole)
  arguments = tiny_flags(blinking_videos, light=True, **changes)
  rng = random.Random(os.urandom(8))
  killed_at = []
  for step in sorted(rng.sample(range(1, steps - 4), kills)):
    process = tiny_runs.start(root, workdir, arguments)
    tiny_runs.wait_for_step(process, workdir, step)
    # A checkpoint is written at every step: most moments are within one.
    time.sleep(rng.uniform(0, 0.05))
    process.kill()
    _, log = process.communicate()
    assert process.returncode == -signal.SIGKILL, log
    killed_at.append(tiny_runs.last_logged(workdir))
    # At most the steps since the last save are lost.
    whole_ones = [
      int(p) for p in os.listdir(workdir / 'checkpoints') if p.isdigit()
    ]
    assert max(whole_ones, default=0) >= killed_at[-1] - 3, killed_at
  process = tiny_runs.start(root, workdir, arguments)
  _, log = process.communicate()
  assert process.returncode == 0, log
  assert 'Resuming from the checkpoint of step' in log
  assert stored_bytes(workdir, steps) == stored_bytes(whole, steps), killed_at
  records = metric_writer.read(workdir / 'metrics.jsonl')
  expected = metric_writer.read(whole / 'metrics.jsonl')
  exact = ('step', 'train/loss', 'train/top1', 'val/top1')
  assert [[r.get(name) for name in exact] for r in records] == [
    [r.get(name) for name in exact] for r in expected
  ], killed_at


@pytest.mark.parametrize(
  'number',
  [
    pytest.param(signal.SIGTERM, marks=pytest.mark.check),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
  ],
)
def test_a_signal_saves_and_says_so(root, blinking_videos, tmp_path, number):
  whole, workdir = tmp_path / 'whole', tmp_path / 'stopped'
  loop.train(tiny_config(blinking_videos), whole)
  # No checkpoint is due: the one that it goes on from is the signal's own.
  arguments = tiny_flags(blinking_videos, light=True, train__checkpoint_every=0)
  process = tiny_runs.start(root, workdir, arguments)
  tiny_runs.wait_for_step(process, workdir, 2)
  process.send_signal(number)
  _, log = process.communicate()
  assert process.returncode == os.EX_TEMPFAIL, log
  assert f'Stopped by {number.name} at step' in log
  process = tiny_runs.start(root, workdir, arguments)
  _, log = process.communicate()
  assert process.returncode == 0, log
  assert stored_bytes(workdir, 12) == stored_bytes(whole, 12)


@pytest.mark.slow
def test_a_loader_process_that_is_killed_is_told_at_once(
  root, blinking_videos, tmp_path
):
  """As the system does where memory ends; the watchdog or grain sees it."""
  arguments = tiny_flags(
    blinking_videos,
    light=True,
    data__num_workers=2,
    train__num_steps=10**6,
    train__eval_every=0,
    train__checkpoint_every=0,
  )
  process = tiny_runs.start(root, tmp_path, arguments)
  tiny_runs.wait_for_step(process, tmp_path, 3)
  children = subprocess.run(
    ['pgrep', '--parent', str(process.pid), '--full', 'spawn_main'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert len(children) >= 2
  os.kill(int(children[-1]), signal.SIGKILL)
  _, log = process.communicate(timeout=120)  # not train.stall_timeout
  assert process.returncode == os.EX_TEMPFAIL, log
  assert f'loader process ({children[-1]}) was killed by SIGKILL' in log


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(root, blinking_videos, tmp_path):
  # A step that never comes to its end.
  stalling = (
    'import sys, time\n'
    'from mtnet_jax import cli\n'
    'from mtnet_jax.commands import train\n'
    'from mtnet_jax.training import loop\n'
    'def stall(*_):\n'
    '  print("stalls", file=sys.stderr, flush=True)\n'
    '  time.sleep(600)\n'
    'loop._Loop._train = stall\n'
    'cli.run(train.COMMAND)\n'
  )
  with subprocess.Popen(
    [
      *(sys.executable, '-c', stalling, '--config=configs/quickstart.py'),
      f'--workdir={tmp_path}',
      *tiny_flags(blinking_videos, light=True),
    ],
    cwd=root,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    while 'stalls' not in process.stderr.readline():
      assert process.poll() is None
    process.send_signal(signal.SIGINT)
    while 'Ctrl-C ends at once' not in process.stderr.readline():
      assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
  assert process.returncode == os.EX_TEMPFAIL
  assert 'Ended at once' in log
