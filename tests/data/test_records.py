"""Record files: whole or absent, read at random, in a format of others."""

import pickle

import msgpack
import numpy as np
import pytest
from array_record.python import array_record_module

from mtnet_jax.data import records
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError


def _examples(count, first=0):
  rng = np.random.default_rng(first)
  return [
    Example(f'ä/{i}.mp4', i % 3, rng.bytes(5000), i / 10, None if i % 2 else i)
    for i in range(first, first + count)
  ]


@pytest.fixture
def two_files(tmp_path):
  paths = [tmp_path / records.shard_name('train', i, 2) for i in range(2)]
  records.write(paths[0], _examples(7))
  records.write(paths[1], iter(_examples(5, first=7)))
  return paths


def test_every_record_comes_back_in_any_order(two_files):
  reader = records.Reader(two_files)
  expected = _examples(7) + _examples(5, first=7)
  assert len(reader) == 12
  for index in (11, 0, 7, 6, 3, 3):
    assert reader[index] == expected[index]
  assert list(reader) == expected
  for index in (-1, 12):
    with pytest.raises(IndexError, match='of 12'):
      reader[index]


def test_readers_travel_to_other_processes(two_files):
  reader = records.Reader(two_files)
  first = reader[0]  # opens a file, which cannot travel
  dumped = pickle.dumps(reader)
  assert len(dumped) < 2000
  assert pickle.loads(dumped)[0] == first


def test_the_file_is_plain(two_files):
  assert two_files[0].name == 'train-00000-of-00002.array_record'
  reader = array_record_module.ArrayRecordReader(str(two_files[0]))
  assert 'group_size:1,' in reader.writer_options_string()
  assert 'uncompressed' in reader.writer_options_string()
  content = msgpack.unpackb(reader.read([2])[0])
  example = _examples(3)[2]
  assert content == {
    'id': 'ä/2.mp4',
    'label': 2,
    'video': example.video,
    'start': 0.2,
    'end': 2,
  }
  reader.close()


def test_an_interrupted_writer_leaves_no_file(tmp_path):
  path = tmp_path / 'train-00000-of-00001.array_record'

  def interrupted():
    yield from _examples(3)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    records.write(path, interrupted())
  assert not path.exists()
  records.write(path, _examples(2))
  assert [file.name for file in tmp_path.iterdir()] == [path.name]
  assert len(records.Reader([path])) == 2


def test_an_older_file_stays_until_the_new_one_is_whole(two_files):
  def failing():
    yield Example('new', 0, b'')
    raise OSError('the disk is full')

  with pytest.raises(OSError, match='disk'):
    records.write(two_files[0], failing())
  assert len(records.Reader(two_files[:1])) == 7


def test_what_the_disk_refuses_is_an_oserror(tmp_path):
  with pytest.raises(OSError, match=r'no/x\.array_record'):
    records.write(tmp_path / 'no' / 'x.array_record', [])


def test_damaged_files_are_named(two_files, tmp_path):
  whole = two_files[0].read_bytes()
  half = tmp_path / 'half.array_record'
  half.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError, match=r'half\.array_record is no whole record'):
    records.Reader([two_files[1], half])
  with pytest.raises(UserError, match=r'missing\.array_record is no whole'):
    records.Reader([tmp_path / 'missing.array_record'])


def test_a_damaged_record_is_named(two_files):
  contents = bytearray(two_files[0].read_bytes())
  place = contents.index(_examples(3)[2].video[100:200])
  contents[place : place + 100] = bytes(100)
  two_files[0].write_bytes(contents)
  reader = records.Reader(two_files)
  assert reader[0] == _examples(1)[0]
  with pytest.raises(VideoError, match='Corrupted') as caught:
    reader[2]
  assert (
    caught.value.name == 'record 2 from train-00000-of-00002.array_record on'
  )
  assert not caught.value.passing
  assert reader[3] == _examples(4)[3]


def test_after_a_failing_disk_files_are_opened_anew(two_files):
  class Failing:
    def read(self, positions):
      raise RuntimeError(f'pread() failed: Input/output error; at {positions}')

  reader = records.Reader(two_files)
  assert reader[2] == _examples(3)[2]
  reader._source._readers[0] = Failing()
  with pytest.raises(VideoError, match='Input/output error') as caught:
    reader[2]
  assert caught.value.passing
  assert reader[2] == _examples(3)[2]
