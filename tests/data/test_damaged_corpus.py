"""Hundreds of damaged videos, each in a process that may not grow or hang."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.data import coded_video

pytestmark = pytest.mark.check
_SECONDS = 20
# What each process may take beyond what it has when it begins: a gigabyte.
_LIMIT = """
import pathlib, re, resource, sys

def limit():
  status = pathlib.Path('/proc/self/status').read_text()
  had = re.search(r'VmData:\\s+(\\d+)', status)
  most = int(had[1]) * 1024 + (1 << 30)
  resource.setrlimit(resource.RLIMIT_DATA, (most, most))
"""
# What is read by each command: the file is argv[1], argv[2] an empty folder.
_READ = {
  'predict': """
from mtnet_jax.data import clips, views
from mtnet_jax.data.video import VideoError, VideoReader

limit()
try:
  with VideoReader(sys.argv[1]) as video:
    indices = clips.view_indices(video.num_frames, 16, 5, 10)
    size = {'crop_size': 128, 'input_size': 112}
    views.read(video, indices, num_crops=3, **size)
    print(video.num_frames, 'frames')
except VideoError as error:
  print('refused:', error)
""",
  'train': """
from mtnet_jax.configs import quickstart
from mtnet_jax.data import pipeline
from mtnet_jax.errors import UserError

config = quickstart.get_config()
config.data.dir = f'{sys.argv[2]}/clips.csv'
config.train.batch_size = 1
config.train.num_steps = 4
csv = pathlib.Path(config.data.dir)
csv.write_text(f'path,label,split\\n"{sys.argv[1]}",a,train\\n')
limit()
try:
  batches = pipeline.build(config, 'train')
  for batch in (batches[step] for step in range(4)):
    print(batch['clips'].shape, batch['broken'].tolist())
except UserError as error:
  print('refused:', error)
""",
  'prepare': """
from mtnet_jax import cli
from mtnet_jax.datasets.folder import prepare

out = pathlib.Path(sys.argv[2])
csv = out / 'clips.csv'
csv.write_text(f'path,label,split\\n"{sys.argv[1]}",a,train\\n')
limit()
sys.argv[1:] = [f'--videos={csv}', f'--out={out / "out"}', '--short_side=112']
try:
  cli.run(prepare.COMMAND)
except SystemExit as error:
  if error.code not in (0, 2, None):
    raise
  print('refused' if error.code else 'written')
""",
}


def _outcome(root, how: str, path: pathlib.Path, out: pathlib.Path) -> str:
  """'' where there are frames or an error of ours; else what went wrong."""
  out.mkdir(parents=True)
  try:
    done = subprocess.run(
      [sys.executable, '-c', _LIMIT + _READ[how], str(path), str(out)],
      cwd=root,
      capture_output=True,
      text=True,
      timeout=_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return f'more than {_SECONDS} s'
  if done.returncode or 'Traceback' in done.stderr:
    return f'exit code {done.returncode}: {done.stderr.strip()[-300:]}'
  return '' if done.stdout.strip() else 'neither frames nor an error'


def _wrong(root, how, paths, out) -> dict[str, str]:
  paths = sorted(paths)
  found = {p.name: _outcome(root, how, p, out / p.name) for p in paths}
  assert found
  return {name: outcome for name, outcome in found.items() if outcome}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts', 'a.avi'])
def test_damage_of_our_own(root, tmp_path, name):
  videos = tmp_path / 'videos'
  videos.mkdir()
  good = videos / name
  codec = {'codec': 'mpeg4'} if name == 'a.avi' else {}
  coded_video.write(good, coded_video.frames(40), **codec)
  contents, rng = good.read_bytes(), np.random.default_rng(1)
  for i in range(40):
    damaged = bytearray(contents)
    reach = len(damaged) if i % 2 else 600
    for place in rng.integers(reach, size=2 ** rng.integers(8)):
      damaged[place] ^= rng.integers(1, 256)
    (videos / f'{i:03}{good.suffix}').write_bytes(damaged)
  good.unlink()
  assert _wrong(root, 'predict', videos.iterdir(), tmp_path / 'out') == {}


@pytest.fixture(scope='module')
def corpus(root, tmp_path_factory):
  make = root.parent / 'shared/cases/hostile/make_corpus.py'
  if not make.exists():
    pytest.skip('the corpus of hostile videos is not beside the project')
  folder = tmp_path_factory.mktemp('corpus')
  subprocess.run([sys.executable, make, folder], check=True)
  return [path for path in folder.rglob('*') if path.is_file()]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize('how', list(_READ))
def test_the_corpus(root, tmp_path, corpus, how):
  assert _wrong(root, how, corpus, tmp_path) == {}
