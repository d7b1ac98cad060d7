"""`make pod`: every command of a pod's story, on this machine."""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

_STEPS = list(range(1, 41))
_MARK = 'made_by_make_pod.txt'


def _rehearse(root, out, **environment):
  return subprocess.run(
    [sys.executable, '-m', 'examples.pod', f'--out={out}'],
    cwd=root,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )


def _scripts(shown):
  """What the shown commands start, in their order."""
  lines = shown.replace('\\\n', '').splitlines()
  commands = [line.split() for line in lines if 'python ' in line]
  return [
    c[2] if c[1] == '-m' else c[1] for c in commands if c[0][0] not in '#-'
  ]


def _steps(run):
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  records = map(json.loads, lines)
  return [r['step'] for r in records if 'train/loss' in r]


def _check_stop(logs):
  """The step of SIGTERM is the one that the second start goes on from."""
  stopped, going_on = (
    int(re.search(f'{words} (\\d+)', (logs / f'{name}.err').read_text())[1])
    for name, words in (
      ('train-0', 'Stopped by SIGTERM at step'),
      ('train_again-0', 'Resuming from the checkpoint of step'),
    )
  )
  assert 0 < stopped == going_on < len(_STEPS)


def _check_evaluation(run, videos):
  """Every video is scored; returns the accuracy."""
  with np.load(run / 'evaluation/predictions.npz') as found:
    wanted = {
      str(path.relative_to(videos)) for path in videos.glob('test/*/*.mp4')
    }
    assert set(found['ids']) == wanted and len(found['ids']) == len(wanted)
    return np.mean(found['probabilities'].argmax(axis=1) == found['labels'])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rehearsal(root, tmp_path):
  # An earlier one has left something, and the user has put something beside it.
  (tmp_path / 'export').mkdir()
  for name in (_MARK, 'export/old', 'notes'):
    (tmp_path / name).write_text('text')
  done = _rehearse(root, tmp_path, JAX_DISABLE_MOST_OPTIMIZATIONS='1')
  assert done.returncode == 0, done.stderr + done.stdout
  assert (tmp_path / 'notes').read_text() == 'text'
  assert not (root / 'gs:').exists()

  compiler = (root / '.venv-aot/installed').exists()
  assert _scripts(done.stdout) == [
    'data.stick_figures.prepare', 'data.folder.prepare',
    *['train.py'] * (5 if compiler else 4),
    *['eval.py'] * 2, 'predict.py', 'export.py',
  ]  # fmt: skip
  told = 'on v5e:2x2: 4 x 2 clips' if compiler else 'left out: '
  assert told in done.stdout

  run = tmp_path / 'run'
  assert _steps(run) == _STEPS
  assert len(list((run / 'tensorboard').iterdir())) == 2  # a file a start
  assert (run / 'checkpoints/40/commit_success.txt').exists()
  _check_stop(tmp_path / 'logs')
  # The second start has looked for the same program.
  assert len(list((tmp_path / 'xla').glob('jit_train_step-*-cache'))) == 1
  top1 = _check_evaluation(run, tmp_path / 'videos')
  assert done.stdout.splitlines()[-1] == f'Evaluation: top-1 {top1:.1%}'

  exported = tmp_path / 'export'
  assert {path.name for path in exported.iterdir()} == {
    'model.json', 'model.stablehlo', 'params.safetensors'
  }  # fmt: skip
  program = (exported / 'model.stablehlo').read_bytes()
  model = json.loads((exported / 'model.json').read_text())
  assert model['program']['sha256'] == hashlib.sha256(program).hexdigest()


@pytest.mark.slow
def test_the_first_command_that_fails_ends_it(root, tmp_path):
  (tmp_path / 'stubs').mkdir()
  (tmp_path / 'stubs/cv2.py').write_text('raise SystemExit("No OpenCV.")')
  out, stubs = tmp_path / 'out', str(tmp_path / 'stubs')
  done = _rehearse(root, out, PYTHONPATH=stubs)
  assert done.returncode == 1
  assert done.stderr == (
    'error: videos ended with code 1 rather than 0: No OpenCV. '
    f'({out}/logs/videos.err)\n'
  )
  assert _scripts(done.stdout) == ['data.stick_figures.prepare']


@pytest.mark.slow
def test_a_folder_of_others_is_left_alone(root, tmp_path):
  (tmp_path / 'export').mkdir()
  (tmp_path / 'export/mine').write_text('text')
  done = _rehearse(root, tmp_path)
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: {tmp_path} is not empty')
  assert [path.name for path in tmp_path.rglob('*')] == ['export', 'mine']
  assert done.stdout == ''
