"""What a failing disk or network does to batches, and what it does not."""

import errno

import numpy as np
import pytest

from configs import base
from mtnet_jax.data import pipeline, records
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError, VideoReader, retry
from mtnet_jax.errors import UserError
from tests.data import coded_video


class _Flaky:
  """Fails so many times, and then returns 'read'."""

  def __init__(self, failures, passing=True):
    self.calls = 0
    self._failures, self._passing = failures, passing

  def __call__(self):
    self.calls += 1
    if self.calls <= self._failures:
      raise VideoError('a.mp4', f'failure {self.calls}', self._passing)
    return 'read'


def test_reads_again_after_growing_waits():
  waits, read = [], _Flaky(3)
  assert retry(read, 4, waits.append) == 'read'
  np.testing.assert_allclose(waits, [0.1, 0.4, 1.6])


def test_gives_up_with_the_last_cause():
  waits, read = [], _Flaky(5)
  with pytest.raises(VideoError, match='failure 3'):
    retry(read, 3, waits.append)
  assert (read.calls, len(waits)) == (3, 2)


def test_what_will_not_pass_is_not_read_again():
  waits, read = [], _Flaky(1, passing=False)
  with pytest.raises(VideoError, match='failure 1'):
    retry(read, 4, waits.append)
  assert (read.calls, waits) == (1, [])


def test_which_errors_of_files_pass(tmp_path):
  (tmp_path / 'text.mp4').write_text('no video')
  lasting = {
    tmp_path / 'none.mp4': 'No such file',
    tmp_path: 'directory',
    tmp_path / 'text.mp4' / 'a.mp4': 'Not a directory',
    tmp_path / 'text.mp4': 'Invalid data',
  }
  for path, cause in lasting.items():
    with pytest.raises(VideoError, match=cause) as caught:
      VideoReader(path)
    assert not caught.value.passing
  # Address 0 of a process cannot be read: a true error of input and output.
  with pytest.raises(VideoError, match='Input/output error') as caught:
    VideoReader('/proc/self/mem')
  assert caught.value.passing


# In batches.


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Four videos for training and two for the test."""
  root = tmp_path_factory.mktemp('videos')
  for name, count in (('train', 4), ('test', 2)):
    for number in range(count):
      path = root / name / 'wave' / f'{number}.mp4'
      path.parent.mkdir(parents=True, exist_ok=True)
      coded_video.write(path, coded_video.frames(20 + number, 24, 32))
  return root


def _config(directory, attempts=2):
  config = base.get_config()
  config.data.update(dir=str(directory), num_frames=4, frame_stride=2)
  config.data.update(short_side=24, crop_size=20, input_size=20)
  config.data.read_attempts = attempts
  config.train.update(batch_size=4, num_steps=2)
  config.eval.update(num_clips=1, num_crops=1, clips_per_step=2)
  config.eval.update(crop_size=24, input_size=24)
  return config


@pytest.fixture
def failing_reads(monkeypatch):
  """A function `(name, times)`: so many times, the disk fails at the video."""
  left = {}
  read = VideoReader.read

  def failing(self, *args):
    for name in left:
      if self.name.endswith(name) and left[name] > 0:
        left[name] -= 1
        read(self, *args)
        cause = OSError(errno.EIO, 'Input/output error')
        with self._errors_named():
          raise cause
    return read(self, *args)

  monkeypatch.setattr(VideoReader, 'read', failing)
  return left.__setitem__


def test_what_passes_leaves_no_trace_in_batches(videos, failing_reads):
  for split in ('train', 'test'):
    expected = pipeline.build(_config(videos), split)[0]
    failing_reads(f'{split}/wave/1.mp4', 1)
    found = pipeline.build(_config(videos), split)[0]
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value)


def test_what_stays_is_broken(videos, failing_reads):
  whole = pipeline.build(_config(videos), 'train')[1]
  failing_reads('train/wave/2.mp4', 99)
  batches = pipeline.build(_config(videos), 'train')
  batch = batches[1]
  expected = [['train/wave/2.mp4', 'Input/output error']]
  assert batch['broken'].tolist() == expected
  for name, value in batches[1].items():  # the same substitute
    np.testing.assert_array_equal(batch[name], value)
  (row,) = np.flatnonzero(whole['ids'] == 'train/wave/2.mp4')
  for name in ('clips', 'ids'):
    kept = np.delete(batch[name], row, axis=0)
    np.testing.assert_array_equal(kept, np.delete(whole[name], row, axis=0))


def test_a_substitute_does_not_depend_on_where_the_other_failed(
  videos, failing_reads, monkeypatch
):
  failing_reads('train/wave/2.mp4', 99)
  late = pipeline.build(_config(videos, attempts=1), 'train')[1]
  init = VideoReader.__init__

  def early(self, source, *args):
    if source.endswith('2.mp4'):
      raise VideoError(source, 'at once')
    init(self, source, *args)

  monkeypatch.setattr(VideoReader, '__init__', early)
  found = pipeline.build(_config(videos), 'train')[1]
  np.testing.assert_array_equal(found['clips'], late['clips'])


def test_evaluation_names_what_stays(videos, failing_reads):
  failing_reads('test/wave/1.mp4', 99)
  batch = pipeline.build(_config(videos), 'test')[0]
  assert batch['mask'].tolist() == [True, False]
  assert batch['broken'].tolist() == ['', 'Input/output error']


def test_a_damaged_record_is_a_broken_video(videos, tmp_path):
  for split, count in (('train', 4), ('test', 2)):
    folder = videos / split / 'wave'
    contents = [(folder / f'{i}.mp4').read_bytes() for i in range(count)]
    path = tmp_path / records.shard_name(split, 0, 1)
    records.write(
      path, [Example(str(i), 0, video) for i, video in enumerate(contents)]
    )
    packed = bytearray(path.read_bytes())
    place = packed.index(contents[1]) + 100
    packed[place : place + 100] = bytes(100)
    path.write_bytes(packed)
  (tmp_path / 'labels.txt').write_text('wave')
  ((name, cause),) = pipeline.build(_config(tmp_path), 'train')[0]['broken']
  assert name == 'record 1 from train-00000-of-00001.array_record on'
  assert cause.startswith('Corrupted')
  batch = pipeline.build(_config(tmp_path), 'test')[0]
  assert batch['mask'].tolist() == [True, False]
  assert batch['ids'].tolist() == [
    '0',
    'record 1 from test-00000-of-00001.array_record on',
  ]
  assert batch['broken'][1].startswith('Corrupted')


def test_attempts_must_be_positive(videos):
  for split in ('train', 'test'):
    with pytest.raises(UserError, match=r'read_attempts \(=0\) must be at'):
      pipeline.build(_config(videos, attempts=0), split)
