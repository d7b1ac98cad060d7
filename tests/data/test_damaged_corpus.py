"""Hundreds of damaged videos, each in a process that may not grow or hang."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.data import coded_video

pytestmark = pytest.mark.check
_SECONDS = 20
# As `predict.py` reads, and with a gigabyte beyond what the process has.
_READ = """
import pathlib, re, resource, sys
from mtnet_jax.data import clips, views
from mtnet_jax.data.video import VideoError, VideoReader

status = pathlib.Path('/proc/self/status').read_text()
had = re.search(r'VmData:\\s+(\\d+)', status)
limit = int(had[1]) * 1024 + (1 << 30)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
  with VideoReader(sys.argv[1]) as video:
    indices = clips.view_indices(video.num_frames, 16, 5, 10)
    size = {'crop_size': 128, 'input_size': 112}
    views.read(video, indices, num_crops=3, **size)
    print(video.num_frames, 'frames')
except VideoError as error:
  print('refused:', error)
"""


def _outcome(root, path: pathlib.Path) -> str:
  """'' where there are frames or a VideoError; otherwise what went wrong."""
  try:
    done = subprocess.run(
      [sys.executable, '-c', _READ, str(path)],
      cwd=root,
      capture_output=True,
      text=True,
      timeout=_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return f'more than {_SECONDS} s'
  if done.returncode:
    return f'exit code {done.returncode}: {done.stderr.strip()[-300:]}'
  return '' if done.stdout.strip() else 'neither frames nor an error'


def _wrong(root, paths) -> dict[str, str]:
  found = {path.name: _outcome(root, path) for path in sorted(paths)}
  assert found
  return {name: outcome for name, outcome in found.items() if outcome}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts', 'a.avi'])
def test_damage_of_our_own(root, tmp_path, name):
  good = tmp_path / name
  codec = {'codec': 'mpeg4'} if name == 'a.avi' else {}
  coded_video.write(good, coded_video.frames(40), **codec)
  contents, rng = good.read_bytes(), np.random.default_rng(1)
  for i in range(40):
    damaged = bytearray(contents)
    reach = len(damaged) if i % 2 else 600
    for place in rng.integers(reach, size=2 ** rng.integers(8)):
      damaged[place] ^= rng.integers(1, 256)
    (tmp_path / f'{i:03}{good.suffix}').write_bytes(damaged)
  good.unlink()
  assert _wrong(root, tmp_path.iterdir()) == {}


@pytest.mark.timeout(7200)
def test_the_corpus(root, tmp_path):
  make = root.parent / 'shared/cases/hostile/make_corpus.py'
  if not make.exists():
    pytest.skip('the corpus of hostile videos is not beside the project')
  subprocess.run([sys.executable, make, tmp_path / 'out'], check=True)
  files = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
  assert _wrong(root, files) == {}
