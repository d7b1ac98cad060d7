"""Record files by Dask: a scheduler and two workers, one of which is killed."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.data import coded_video

_PATIENCE = 200.0  # seconds
_NUM_SHARDS = 8  # of each of two splits


@pytest.fixture
def videos(tmp_path):
  root = tmp_path / 'videos'
  for split in ('train', 'test'):
    for label in ('hug', 'wave'):
      folder = root / split / label
      folder.mkdir(parents=True)
      for i in range(12):
        images = coded_video.frames(40 + i)
        coded_video.write(folder / f'{i:02}.mp4', images)
  (root / 'test/wave/text.mp4').write_text('no video')
  return root


@pytest.fixture
def start(root):
  """Starts Python with some arguments; its processes end with the test."""
  pytest.importorskip('apache_beam')
  pytest.importorskip('distributed')
  started = []

  def start(*arguments):
    started.append(
      subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root)},
      )
    )
    return started[-1]

  yield start
  for process in started:
    process.kill()
    process.wait()


def _prepare(start, videos, out, *more):
  return start(
    '-c',
    'from mtnet_jax.commands.verbs import main\n'
    "if __name__ == '__main__': main()",
    *('prepare', 'folder', f'--videos={videos}', f'--out={out}'),
    *(f'--num_shards={_NUM_SHARDS}', '--short_side=32', *more),
  )


def _cluster(start, tmp_path):
  """Returns the address of a scheduler, and two workers of one thread each."""
  where = tmp_path / 'scheduler.json'
  start(
    *('-m', 'dask', 'scheduler', '--host=127.0.0.1', '--port=0'),
    *('--no-dashboard', f'--scheduler-file={where}'),
  )
  workers = [
    start(
      *('-m', 'dask', 'worker', '--host=127.0.0.1', '--nthreads=1'),
      *('--no-nanny', '--no-dashboard', f'--scheduler-file={where}'),
      f'--local-directory={tmp_path / "scratch"}',
    )
    for _ in range(2)
  ]
  _wait_until(where.exists)
  address = json.loads(where.read_text())['address']
  from distributed import Client

  with Client(address, set_as_default=False) as client:
    client.wait_for_workers(2, timeout=_PATIENCE)
  return address, workers


def _wait_until(holds):
  end = time.monotonic() + _PATIENCE
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.02)


def _contents(out):
  return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.check
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings('default')  # Dask's own
def test_a_killed_worker_changes_no_byte(videos, tmp_path, start):
  here, there = tmp_path / 'here', tmp_path / 'there'
  assert _prepare(start, videos, here).wait() == 0
  address, (_, victim) = _cluster(start, tmp_path)
  preparing = _prepare(
    start,
    *(videos, there, '--runner=DaskRunner'),
    f'--beam_options=--dask_client_address={address}',
  )

  def made():
    return {
      path.name: path.stat().st_mtime_ns for path in there.glob('*-of-*.json')
    }

  _wait_until(lambda: len(made()) >= _NUM_SHARDS // 2)
  victim.kill()
  before = made()
  assert len(before) < 2 * _NUM_SHARDS  # on the way
  assert preparing.wait() == 0
  assert victim.wait() == -9
  assert _contents(there) == _contents(here)
  # What was there, by the killed worker too, was not made again.
  after = made()
  assert {name: after[name] for name in before} == before
