"""A record file and its report, whatever happens in between."""

import dataclasses
import itertools
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from mtnet_jax.data import preparation, records, shards, sources
from mtnet_jax.data.records import Example
from mtnet_jax.data.shards import Form, Shard
from mtnet_jax.errors import UserError
from tests.data import coded_video


@pytest.fixture
def shard(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.frames(20))
  examples = tuple(Example(str(i), i % 2, path) for i in range(3))
  name = records.shard_name('train', 0, 1)
  (tmp_path / 'out').mkdir()
  form = Form(('hug', 'wave'), 16, 0)
  return Shard(tmp_path / 'out' / name, examples, form, 'hash')


def test_a_report_is_believed_while_it_fits(shard):
  assert shards.read_report(shard) is None
  seen = []
  report = shards.write(shard, lambda: seen.append(1))
  assert len(seen) == 3
  assert report['classes'] == {'hug': 2, 'wave': 1}
  assert shards.read_report(shard) == report
  assert shards.read_report(dataclasses.replace(shard, inputs='other')) is None
  whole = shard.path.read_bytes()
  shard.path.write_bytes(whole[:-1])  # a copy that was cut off
  assert shards.read_report(shard) is None
  shard.path.unlink()
  assert shards.read_report(shard) is None
  shard.path.write_bytes(whole)
  assert shards.read_report(shard) == report
  for text in ('', '[]', '{"inputs": "hash"}', '7'):
    shard.report_path.write_text(text)
    assert shards.read_report(shard) is None


def test_threads_change_nothing(shard):
  one = shards.write(shard, num_threads=1)
  contents = shard.path.read_bytes()
  assert shards.write(shard, num_threads=3) == one
  assert shard.path.read_bytes() == contents


def test_no_more_videos_are_held_than_are_being_tried(shard, monkeypatch):
  ahead, most = 0, 0
  try_one = shards._try

  def counting(example, short_side):
    nonlocal ahead, most
    ahead += 1
    most = max(most, ahead)
    return try_one(example, short_side)

  monkeypatch.setattr(shards, '_try', counting)
  path = shard.examples[0].video
  examples = tuple(Example(str(i), 0, path) for i in range(40))
  shard = dataclasses.replace(shard, examples=examples)
  for i, (example, frames, problem) in enumerate(shards._try_all(shard, 2)):
    assert (example.id, frames, problem) == (str(i), 20, '')
    time.sleep(0.002)  # a slow disk
    ahead -= 1
  assert i == 39 and most <= 6


def test_a_disk_that_refuses_is_told(shard, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'replace', full)
    with pytest.raises(UserError, match=r'_record cannot be written: No space'):
      shards.write(shard)
  assert not [*shard.path.parent.iterdir()]  # room for others


# Of what is done to the folder, the N-th is the last thing before the end.
_DIES = """
import itertools, os, pathlib, sys
from mtnet_jax.data import preparation, shards, sources

# Two threads count.
moments, last = itertools.count(1), int(sys.argv[3])

def dying(function):
  def call(*args, **kwargs):
    if next(moments) == last:
      os._exit(9)
    result = function(*args, **kwargs)
    if next(moments) == last:
      os._exit(9)
    return result
  return call

for name in ('replace', 'unlink', 'write_text'):
  setattr(pathlib.Path, name, dying(getattr(pathlib.Path, name)))
shards._try = dying(shards._try)
os.cpu_count = lambda: 1
preparation.write(sources.list_videos(sys.argv[1]), sys.argv[2], 2)
"""


def _contents(out):
  return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(tmp_path, root):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  for name in ('hug/1', 'hug/2', 'wave/3'):
    (videos / 'train' / name).parent.mkdir(parents=True, exist_ok=True)
    coded_video.write(videos / f'train/{name}.mp4', coded_video.frames(20))
  listing = sources.list_videos(videos)
  expected = {}
  for side in (0, 24):
    preparation.write(listing, tmp_path / str(side), 2, short_side=side)
    expected[side] = _contents(tmp_path / str(side))
    assert len(expected[side]) == 6  # two record files, two reports, two more
  deaths = ends = 0
  # Until nothing is left to die at.
  for dies_at in itertools.count(1, 4):
    # Records of one size are being replaced by those of another.
    shutil.copytree(tmp_path / '24', out)
    command = [sys.executable, '-c', _DIES, videos, out, str(dies_at)]
    died = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if died.returncode == 0:
      break
    assert died.returncode == 9, died.stderr
    deaths += 1
    if 'labels.txt' in (left := _contents(out)):
      ends += 1
      assert left in (expected[0], expected[24])
    for side in (24, 0):
      shutil.rmtree(out)
      out.mkdir()
      for name, contents in left.items():
        (out / name).write_bytes(contents)
      preparation.write(listing, out, 2, short_side=side)
      assert _contents(out) == expected[side]
    shutil.rmtree(out)
  assert deaths >= 8 and ends <= 2
