"""A full disk is one sentence and code 2, and leaves no part of a file."""

import errno
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import base
from data.folder import prepare
from mtnet_jax import files, models
from mtnet_jax.convert import conversion, families, layouts, torch_weights
from mtnet_jax.data import preview
from mtnet_jax.data import report as data_report
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import report
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.explain import files as explain_files
from mtnet_jax.prediction import timeline
from mtnet_jax.prediction.timeline import Timeline
from mtnet_jax.runs.leaves import leaf_paths
from tests import command_line, prediction_runs, tiny_runs
from tests.disks import fill
from tests.explain import example

_ADVICE = 'Free some space and give the same command again'


def _contents(disk: pathlib.Path) -> dict[str, bytes]:
  """What is there beside the filler."""
  paths = (path for path in disk.rglob('*') if path.is_file())
  found = {str(path.relative_to(disk)): path.read_bytes() for path in paths}
  found.pop('filler', None)
  return found


def _check(done: command_line.Done, path: pathlib.Path) -> None:
  assert done.code == 2, done.stderr
  said = re.search('^error: .*', done.stderr, re.MULTILINE)[0]
  assert str(path) in said and 'No space left on device' in said, said
  assert f'. {_ADVICE}' in said, said


@pytest.mark.parametrize(('old', 'leave'), [('', 0), ('', 4096), ('old', 0)])
@pytest.mark.parametrize(
  ('command', 'flags'),
  [
    (data_report.COMMAND, '--dir={videos} --out={out} --seconds=0.1'),
    (preview.COMMAND, '--config=configs/quickstart.py --out={out} {tiny}'),
  ],
)
def test_one_file(
  command, flags, old, leave, blinking_videos, small_disk, root, monkeypatch
):
  monkeypatch.chdir(root)
  out = small_disk / 'a.png'
  if old:
    out.write_text(old)
  flags = flags.format(
    videos=blinking_videos,
    out=out,
    tiny=' '.join(tiny_runs.tiny_flags(blinking_videos)),
  )
  fill(small_disk, leave)
  _check(command_line.run(command, *flags.split()), out)
  assert _contents(small_disk) == ({'a.png': b'old'} if old else {})


@pytest.mark.parametrize('leave', [0, 8192])
@pytest.mark.parametrize('short_side', [0, 16])
def test_records(blinking_videos, small_disk, leave, short_side):
  filler = fill(small_disk, leave)
  out = small_disk / 'out'
  flags = f'--videos={blinking_videos} --out={out} --short_side={short_side}'
  done = command_line.run(prepare.COMMAND, *flags.split())
  _check(done, out)
  assert not _contents(small_disk)
  filler.unlink()
  done = command_line.run(prepare.COMMAND, *flags.split())
  assert done.code == 0, done.stderr


_PREDICTIONS = Predictions(
  ids=np.array(['a', 'b', 'c']),
  labels=np.array([0, 1, 1]),
  probabilities=np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]),
  broken={},
)
_TIMELINE = Timeline(
  'a.mp4',
  ('hug', 'kick'),
  np.array([0.0, 0.5]),
  np.array([1.0, 1.5]),
  np.array([[0.7, 0.3], [0.4, 0.6]], np.float32),
)


@pytest.mark.parametrize(
  ('old', 'leave'), [('', 4096), ('', 12288), ('old', 0), ('old', 12288)]
)
@pytest.mark.parametrize(
  ('write', 'name'),
  [
    (
      lambda folder: report.write(_PREDICTIONS, ('hug', 'kick'), folder),
      'evaluation/summary.json',
    ),
    (lambda folder: timeline.write(_TIMELINE, folder), 'timeline.csv'),
    (
      lambda folder: explain_files.write(
        example.make(clip=example.walking_square()[:2]), folder
      ),
      'explanation.json',
    ),
  ],
)
def test_files_of_one_result_are_all_new_or_all_old(
  write, name, old, leave, small_disk
):
  """Else the figures of one checkpoint would lie beside those of another."""
  folder = small_disk / 'out'
  if old:
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(old)
  filler = fill(small_disk, leave)
  with pytest.raises(OSError) as error:
    write(folder)
  assert error.value.errno == errno.ENOSPC
  assert error.value.filename.startswith(str(folder))
  assert '.writing' not in error.value.filename
  assert _contents(small_disk) == ({f'out/{name}': b'old'} if old else {})
  filler.unlink()
  write(folder)
  found = _contents(small_disk)
  assert len(found) > 1 and all(found.values()) and found[f'out/{name}'] != b''
  assert not any('.writing' in path for path in found)


@pytest.mark.parametrize('leave', [8192, 40960])
def test_converted_weights(small_disk, tmp_path, leave, quick_compilation):
  """What is told to be done, the same command again, must then work."""
  widths = 2, 3, 4, 5
  model = models.build('r3d_18', 2, stem_pool=False, stage_features=widths)
  shapes = conversion.variable_shapes(model, (4, 32, 32, 3))
  layout = families.layout('torchvision', 'r3d_18')
  tensors = {
    layout.sources(path)[0]: np.ones(
      layouts.torch_shape(path, leaf.shape), np.float32
    )
    for path, leaf in leaf_paths(shapes).items()
  }
  save_file(tensors, tmp_path / 'weights.safetensors')
  overrides = {
    'model.stage_features': widths,
    'data.num_frames': 4,
    'data.input_size': 32,
  }

  def convert():
    torch_weights.convert(
      tmp_path / 'weights.safetensors',
      'r3d_18',
      base.get_config(),
      small_disk / 'run',
      overrides=overrides,
    )

  filler = fill(small_disk, leave)
  with pytest.raises((OSError, UserError), match='No space left') as error:
    convert()
  assert str(small_disk / 'run') in str(error.value)
  assert '.writing' not in str(error.value)
  assert not any((small_disk / 'run').glob('[!.]*'))
  filler.unlink()
  convert()
  assert (small_disk / 'run/checkpoints/0').is_dir()


def test_stdout(root):
  """Help and tables that a full disk is to keep."""
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
      [sys.executable, 'eval.py', '--help'],
      cwd=root,
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  assert done.returncode == 2
  told = f'No space left on device: what is printed. {_ADVICE}.'
  assert done.stderr == f'error: {told}\n'


def test_stderr(root):
  """Nothing can be told; the code still tells."""
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
      [sys.executable, 'train.py', '--config=configs/base.py'],
      cwd=root,
      stderr=full,
      check=False,
    )
  assert done.returncode == 2


@pytest.mark.slow
def test_a_file_that_is_too_large_for_this_shell(tmp_path, root):
  path = tmp_path / 'cost.json'
  done = subprocess.run(
    f'ulimit -f 1; {sys.executable} -m mtnet_jax.commands.cost --nolatency '
    f'--model=mtnet_s --clip=4x32x32 --json={path}',
    shell=True,
    executable='/bin/bash',
    cwd=root,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2, done.stderr
  assert f"File too large: '{path}'. Allow larger files" in done.stderr
  assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_written_to_as_it_is():
  read, write = os.pipe()
  with files.replacing(pathlib.Path(f'/proc/self/fd/{write}')) as path:
    path.write_text('x')
  os.close(write)
  with open(read) as file:
    assert file.read() == 'x'


@pytest.mark.slow
@pytest.mark.parametrize(
  'line',
  [
    'eval.py --config=configs/quickstart.py --workdir={disk}/run {tiny}',
    'predict.py --workdir={disk}/run --json {video} > {disk}/out',
    'predict.py --workdir={disk}/run --csv {video} > {disk}/out',
    'predict.py --workdir={disk}/run {video} > {disk}/out',
    'predict.py --workdir={disk}/run --timeline={disk}/out {video}',
    'explain.py --workdir={disk}/run --video={video} --out={disk}/out '
    '--faithfulness_steps=0 --method=saliency_tubes',
    'export.py --workdir={disk}/run --out={disk}/out',
  ],
)
def test_processes_end(line, small_disk, blinking_videos, root):
  """No thread of a library holds them."""
  prediction_runs.write_run(small_disk / 'run', blinking_videos)
  before = set(_contents(small_disk))
  fill(small_disk)
  line = line.format(
    disk=small_disk,
    video=blinking_videos / 'test/bright/0.mp4',
    tiny=' '.join(tiny_runs.tiny_flags(blinking_videos, light=True)),
  )
  done = subprocess.run(
    ['bash', '-c', f'{sys.executable} {line}'],
    cwd=root,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
    timeout=120,
  )
  assert done.returncode == 2, done.stderr
  (said,) = re.findall('^error: .*', done.stderr, re.MULTILINE)
  assert 'No space left on device' in said and 'ree some space' in said
  assert 'Traceback' not in done.stderr
  written = {name for name in set(_contents(small_disk)) - before}
  assert written <= {'out'}  # what the shell has made for stdout
