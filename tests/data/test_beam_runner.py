"""Record files by Apache Beam: the same ones, and the same mistakes told."""

import builtins
import pathlib
import subprocess
import sys

import pytest

from mtnet_jax.data import beam_runner, preparation, records, shards, sources
from mtnet_jax.data.shards import Form, Shard
from mtnet_jax.errors import UserError
from tests.data import coded_video

_LOCAL = ['--direct_running_mode=in_memory']


def _contents(out):
  return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def listing(tmp_path):
  root = tmp_path / 'videos'
  root.mkdir()
  for name in 'abcd':
    coded_video.write(root / f'{name}.mp4', coded_video.frames(30))
  (root / 'text.mp4').write_text('no video')
  (root / 'clips.csv').write_text(
    'path,label,split,start,end\na.mp4,wave,train,,\nb.mp4,hug,train,0.2,1\n'
    'c.mp4,wave,train,,\nd.mp4,hug,test,,0.4\ngone.mp4,hug,train,,\n'
    'text.mp4,hug,test,,\n'
  )
  return sources.list_videos(root)


def test_without_beam(listing, tmp_path, monkeypatch):
  load = builtins.__import__

  def absent(name, *args):
    if name.partition('.')[0] == 'apache_beam':
      raise ImportError(name)
    return load(name, *args)

  monkeypatch.setattr(builtins, '__import__', absent)
  with pytest.raises(UserError, match=r"pip install 'mtnet_jax\[beam\]'"):
    preparation.write(listing, tmp_path / 'out', runner='DirectRunner')
  assert not (tmp_path / 'out').exists()


def test_the_error_of_a_worker_is_found():
  told = 'a.array_record cannot be written: No space left on device.'
  for error in (
    UserError(f"{told} [while running 'write records']"),
    RuntimeError(
      'Traceback (most recent call last):\n'
      f'  File "x.py"\nmtnet_jax.errors.UserError: {told}\n\nDuring handling\n'
      f'mtnet_jax.errors.UserError: {told} [while running '
      "'write records-ptransform-7']\n"
    ),
  ):
    found = beam_runner._user_error(error)
    assert isinstance(found, UserError) and str(found) == told
  error = RuntimeError('a KeyError, say')
  assert beam_runner._user_error(error) is error


class _KilledWorker(Exception):
  __module__ = 'distributed.scheduler'


def test_the_errors_of_a_cluster_are_told():
  foreign = RuntimeError('deserialization')
  foreign.__cause__ = ModuleNotFoundError("No module named 'mtnet_jax'")
  for error, told in (
    (_KilledWorker('4 workers died.'), 'gave up: 4 workers died. The same'),
    (OSError('Timed out to tcp://a:1'), 'gave up: Timed out to tcp://a:1. The'),
    (foreign, "says: No module named 'mtnet_jax'. Install mtnet_jax with"),
  ):
    found = beam_runner._user_error(error)
    assert isinstance(found, UserError) and told in str(found)


def test_a_finished_file_is_not_made_again(tmp_path):
  path = tmp_path / records.shard_name('train', 0, 1)
  shard = Shard(path, (), Form(('hug',), 16, 0), 'hash')
  beam_runner._write(shard)
  times = path.stat().st_mtime_ns, shard.report_path.stat().st_mtime_ns
  beam_runner._write(shard)
  after = path.stat().st_mtime_ns, shard.report_path.stat().st_mtime_ns
  assert after == times


# What follows needs Beam.


@pytest.fixture
def beam():
  return pytest.importorskip('apache_beam')


def test_records_and_manifest_are_those_of_one_machine(listing, tmp_path, beam):
  here, there = tmp_path / 'here', tmp_path / 'there'
  for side in (0, 24):
    manifest = preparation.write(listing, here, 2, short_side=side)
    again = preparation.write(
      listing, there, 2, 16, side, 'DirectRunner', _LOCAL
    )
    assert again == manifest
    assert _contents(there) == _contents(here)
  assert manifest['splits']['train']['missing'] == 1
  assert manifest['splits']['test']['broken'] == 1

  # Started again, it makes what is not there.
  before = _contents(there)
  kept = there / 'train-00000-of-00002.array_record'
  time = kept.stat().st_mtime_ns
  (there / 'train-00001-of-00002.array_record').unlink()
  (there / 'labels.txt').unlink()
  preparation.write(listing, there, 2, 16, 24, 'DirectRunner', _LOCAL)
  assert _contents(there) == before
  assert kept.stat().st_mtime_ns == time


def test_a_full_disk_is_told(listing, tmp_path, beam, monkeypatch):
  replace = pathlib.Path.replace

  def full(self, target):
    if target.name == 'train-00001-of-00002.array_record':
      raise OSError(28, 'No space left on device')
    return replace(self, target)

  monkeypatch.setattr(pathlib.Path, 'replace', full)
  out = tmp_path / 'out'
  with pytest.raises(
    UserError, match=r'_record cannot be written: No.*here\.$'
  ):
    preparation.write(listing, out, 2, 16, 0, 'DirectRunner', _LOCAL)
  assert not (out / 'labels.txt').exists()
  assert not [*out.glob('*.partial')]
  monkeypatch.undo()
  preparation.write(listing, out, 2, 16, 0, 'DirectRunner', _LOCAL)
  assert len(sources.open_source(out, 'train')) == 3


def test_what_a_killed_worker_left_is_removed(
  listing, tmp_path, beam, monkeypatch
):
  out, write = tmp_path / 'out', shards.write

  def write_twice(shard):
    shard.path.with_name(f'{shard.path.name}.1a.partial').write_text('cut')
    write(shard)

  monkeypatch.setattr(shards, 'write', write_twice)
  preparation.write(listing, out, 2, 16, 0, 'DirectRunner', _LOCAL)
  assert not [*out.glob('*.partial')]


def test_files_that_workers_leave_out_are_missed(tmp_path, beam, monkeypatch):
  monkeypatch.setattr(shards, 'write', lambda shard: None)
  path = tmp_path / records.shard_name('train', 0, 1)
  shard = Shard(path, (), Form(('hug',), 16, 0), 'hash')
  pipeline = beam_runner.build('DirectRunner', _LOCAL)
  with pytest.raises(
    UserError, match='1 of 1 record files are not there, such'
  ):
    beam_runner.run(pipeline, [shard])


@pytest.mark.parametrize(
  ('runner', 'options', 'message'),
  [
    ('NoRunner', [], '--runner=NoRunner: Unexpected pipeline runner: NoRunner'),
    ('no.Runner', [], "--runner=no.Runner: No module named 'no'"),
    ('DirectRunner', ['--direct_num_workers=x'], "invalid int value: 'x'"),
  ],
)
def test_what_beam_refuses(listing, tmp_path, beam, runner, options, message):
  out = tmp_path / 'out'
  preparation.write(listing, out)
  before = _contents(out)
  with pytest.raises(UserError, match=message):
    preparation.write(listing, out, 0, 16, 24, runner, options)
  assert _contents(out) == before


def test_dask_that_is_not_installed(listing, tmp_path, beam, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'mtnet_jax\[dask\]'"):
    preparation.write(listing, tmp_path / 'out', runner='DaskRunner')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'address', ['nonsense', 'tcp://127.0.0.1:1', 'tls://127.0.0.1:1']
)
@pytest.mark.filterwarnings('default')  # Dask's own
def test_a_dask_scheduler_that_is_not_there(listing, tmp_path, beam, address):
  pytest.importorskip('distributed')
  out = tmp_path / 'out'
  preparation.write(listing, out)
  before = _contents(out)
  options = [
    f'--dask_client_address={address}',
    '--dask_connection_timeout=1',
  ]
  with pytest.raises(UserError, match=f'address={address} is not the address'):
    preparation.write(listing, out, 0, 16, 24, 'DaskRunner', options)
  assert _contents(out) == before


@pytest.mark.slow
def test_processes_of_their_own_and_no_tensorflow(
  listing, tmp_path, beam, root
):
  code = """
import sys
from mtnet_jax.data import preparation, sources
if __name__ == '__main__':
  preparation.write(
    sources.list_videos(sys.argv[1]), sys.argv[2], 2, 16, 0, 'DirectRunner',
    ['--direct_running_mode=multi_processing', '--direct_num_workers=2'],
  )
  print('tensorflow' in sys.modules)
"""
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  done = subprocess.run(
    [sys.executable, '-c', code, str(videos), str(out)],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == 'False'
  preparation.write(listing, tmp_path / 'here', 2)
  assert _contents(out) == _contents(tmp_path / 'here')
