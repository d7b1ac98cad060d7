"""A run whose folder is on a bucket, from its first step to predictions."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mtnet_jax import locations
from mtnet_jax.evaluation import predictions_file
from mtnet_jax.runs import metric_writer
from tests import distributed_runs
from tests.tiny_runs import tiny_flags

pytestmark = pytest.mark.timeout(900)


def _start(root, name, folder, *arguments):
  """A command, in another folder than those of other tests."""
  return subprocess.Popen(
    [sys.executable, str(root / f'{name}.py'), *map(str, arguments)],
    cwd=folder,
    env=os.environ | {'PYTHONPATH': str(root)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _run(*args):
  process = _start(*args)
  out, log = process.communicate()
  return process.returncode, out, log


def _steps(workdir):
  records = metric_writer.read(workdir / 'metrics.jsonl')
  return [r['step'] for r in records if 'train/loss' in r]


def _names(folder):
  return {path.name for path in folder.iterdir()}


@pytest.fixture(scope='module')
def run(root, blinking_videos, tmp_path_factory, _storage):
  """A trained run, its flags, and the folder where its commands are given.

  It was stopped by SIGTERM and went on.
  """
  bucket, here = 'gs://bucket/run', tmp_path_factory.mktemp('here')
  workdir = locations.as_path(bucket)
  flags = [
    f'--config={root}/configs/quickstart.py',
    f'--workdir={bucket}',
    *tiny_flags(
      blinking_videos,
      light=True,
      data__num_workers=1,
      eval__reversed_pairs='()',
    ),
  ]
  process = _start(root, 'train', here, *flags)
  while process.poll() is None and len(_steps(workdir)) < 2:
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  _, log = process.communicate()
  assert process.returncode == os.EX_TEMPFAIL, log
  assert len(_steps(workdir)) < 12

  code, _, log = _run(root, 'train', here, *flags)
  assert code == 0, log
  assert 'Resuming from the checkpoint of step' in log
  assert 'Traceback' not in log and 'gcsfs' not in log
  yield workdir, flags, here
  assert not list(here.iterdir())  # no folder `gs:`


@pytest.mark.check
def test_all_files_are_on_the_bucket(run):
  workdir, _, _ = run
  assert _steps(workdir) == list(range(1, 13))
  assert _names(workdir) >= {
    'checkpoints', 'config.json', 'labels.txt', 'metrics.jsonl', 'tensorboard'
  }  # fmt: skip
  assert {'12', '11'} <= _names(workdir / 'checkpoints')
  assert len(_names(workdir / 'tensorboard')) == 2
  assert (workdir / 'labels.txt').read_text() == 'bright\ndark\n'


@pytest.mark.check
def test_evaluation_and_predictions_agree(root, blinking_videos, run):
  workdir, flags, here = run
  code, out, log = _run(root, 'eval', here, *flags, '--controls')
  assert code == 0, log
  assert f'{workdir}/evaluation' in out
  assert _names(workdir / 'evaluation') == {
    'confusion.png', 'controls.json', 'per_class.csv', 'predictions.npz',
    'summary.json',
  }  # fmt: skip
  assert (workdir / 'curves.png').read_bytes()[1:4] == b'PNG'

  videos = sorted(map(str, (blinking_videos / 'test').rglob('*.mp4')))
  code, out, log = _run(
    root, 'predict', here, f'--workdir={workdir}', '--json', *videos
  )
  assert code == 0, log
  lines = [json.loads(line) for line in out.splitlines()]
  assert [line['video'] for line in lines] == videos
  scored = predictions_file.read(f'{workdir}/evaluation/predictions.npz')
  np.testing.assert_allclose(
    sorted(line['probabilities']['bright'] for line in lines),
    sorted(scored.probabilities[:, 0]),
    atol=1e-4,
  )


@pytest.mark.check
def test_another_run_starts_from_it(root, run, tmp_path):
  workdir, flags, here = run
  code, _, log = _run(
    root,
    'train',
    here,
    *flags,
    f'--workdir={tmp_path}',
    f'--config.train.init_from={workdir}',
    '--config.train.num_steps=3',
  )
  assert code == 0, log
  assert f'Starting from {workdir}: ' in log
  assert 'checkpoints' in _names(tmp_path)


@pytest.mark.check
def test_it_is_exported(root, run, tmp_path):
  workdir, _, here = run
  code, _, log = _run(
    root, 'export', here, f'--workdir={workdir}', f'--out={tmp_path}'
  )
  assert code == 0, log
  assert 'model.stablehlo' in _names(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('workdir', 'wanted'),
  [
    ('gs://nowhere/run', 'cannot be used: 404'),
    ('gs://forbidden/run', 'does not have storage.objects.list'),
  ],
)
@pytest.mark.parametrize('command', ['train', 'predict'])
def test_a_bucket_that_cannot_be_used_is_told_in_a_sentence(
  root, blinking_videos, tmp_path, bucket, command, workdir, wanted
):
  flags = [f'--workdir={workdir}', f'{blinking_videos}/test/dark/0.mp4']
  if command == 'train':
    flags[1:] = [
      f'--config={root}/configs/quickstart.py', *tiny_flags(blinking_videos)
    ]  # fmt: skip
  elif 'nowhere' in workdir:
    wanted = 'There is no folder gs://nowhere/run'
  code, _, log = _run(root, command, tmp_path, *flags)
  assert code == 2
  (line,) = log.splitlines()
  assert line.startswith('error: ') and wanted in line
  assert not list(tmp_path.iterdir())


@pytest.mark.check
def test_two_processes_write_a_run_together(root, blinking_videos, bucket):
  workdir = locations.as_path(bucket)
  for steps in (3, 5):
    distributed_runs.train(
      root, blinking_videos, bucket, 2, train__num_steps=steps
    )
  assert _steps(workdir) == [1, 2, 3, 4, 5]
  assert {'4', '5'} <= _names(workdir / 'checkpoints')
  assert not pathlib.Path(root, 'gs:').exists()


@pytest.mark.check
def test_a_second_training_of_the_folder_ends_with_a_sentence(
  root, blinking_videos, bucket, tmp_path
):
  """And the first goes on as if nothing had been."""
  flags = [
    f'--config={root}/configs/quickstart.py',
    f'--workdir={bucket}',
    *tiny_flags(
      blinking_videos,
      light=True,
      train__num_steps=10**6,
      train__checkpoint_every=20,
      train__validation_split='',
    ),
  ]
  workdir = locations.as_path(bucket)
  first = _start(root, 'train', tmp_path, *flags)
  while first.poll() is None and len(_steps(workdir)) < 2:
    time.sleep(0.1)
  before = len(_steps(workdir))
  code, _, log = _run(root, 'train', tmp_path, *flags)
  assert code == 2 and 'Traceback' not in log, log
  assert (
    f'error: {bucket} is held by another training, process {first.pid} on '
    f'{socket.gethostname()} since 20'
  ) in log
  after = len(_steps(workdir))
  assert first.poll() is None and after > before
  first.send_signal(signal.SIGTERM)
  _, log = first.communicate()
  assert first.returncode == os.EX_TEMPFAIL, log
  # Whole, and in their order: nobody else has written.
  steps = _steps(workdir)
  assert steps == list(range(1, len(steps) + 1)) and len(steps) >= after
  assert {str(steps[-1])} <= _names(workdir / 'checkpoints')
  assert 'training.lock' not in _names(workdir)
