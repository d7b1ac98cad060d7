"""Folders of numbered images, read as videos are, by whatever reads videos."""

import csv
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from mtnet_jax.data import (
  class_folders,
  encoding,
  folders,
  own_videos,
  pipeline,
  preparation,
  probing,
  shared_videos,
  sources,
)
from mtnet_jax.data.batches import open_clip
from mtnet_jax.data.frame_folders import FrameFolderReader
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import timeline
from mtnet_jax.prediction.user_videos import InputError, find_videos
from mtnet_jax.runs import folder as run_folder
from tests.data import coded_video
from tests.prediction_runs import BrightnessPredictor
from tests.tiny_runs import tiny_config


def _write(folder, count, pattern='img_{:05}.png', first=1, shape=(32, 48)):
  """Frame i is i · 5 bright, blue in its left half."""
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(count):
    image = np.full((*shape, 3), 5 * i, np.uint8)  # blue green red
    image[:, : shape[1] // 2, 0] = 255
    path = folder / pattern.format(first + i)
    assert cv2.imwrite(str(path), image)
  return folder


def _numbers(frames):
  """The frame numbers of (…, h, w, c), by the red channel."""
  return np.rint(frames[..., 0].mean(axis=(-2, -1)) / 5).astype(int).tolist()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Three videos a class and split, of 8, 9 and 12 images."""
  root = tmp_path_factory.mktemp('data')
  for split in ('train', 'val', 'test'):
    for name, pattern in (('bright', 'img_{:05}.jpg'), ('dark', '{}.png')):
      for number, count in enumerate((8, 9, 12)):
        _write(root / split / name / f'video_{number}', count, pattern)
  return root


# The reader.


def test_frames_by_number(tmp_path):
  folder = _write(tmp_path / 'a', 12, 'f{}.png', first=0)
  with FrameFolderReader(folder) as video:
    assert (video.num_frames, video.width, video.height) == (12, 48, 32)
    frames = video.read([11, 2, 2, 10])
    assert frames.shape == (4, 32, 48, 3) and frames.dtype == np.uint8
    assert _numbers(frames) == [11, 2, 2, 10]
    # RGB: blue is last.
    assert frames[0, 0, 0].tolist() == [55, 55, 255]
    assert video.read([3], 16).shape == (1, 16, 24, 3)
    with pytest.raises(IndexError, match='which has 12'):
      video.read([12])
    assert [_numbers(f) for _, f in video.frames()] == list(range(12))


def test_times_and_parts(tmp_path):
  folder = _write(tmp_path / 'a', 20)
  video = FrameFolderReader(folder)
  assert video.fps == 25
  np.testing.assert_allclose(video.times, np.arange(21) / 25)
  video = FrameFolderReader(folder, start=0.3, end=0.9, fps=10)
  # Of 10 a second: 0.3 s is frame 3, and frame 9 is at 0.9 s and out.
  assert video.num_frames == 6
  assert _numbers(video.read(range(6))) == [3, 4, 5, 6, 7, 8]
  np.testing.assert_allclose(video.times, np.arange(7) / 10)
  video = FrameFolderReader(folder, fps=29.97)
  assert video.times[20] == pytest.approx(20 / 29.97)
  with pytest.raises(VideoError, match=r'from 3 s to the end; the last one is'):
    FrameFolderReader(folder, start=3, fps=10)


def test_names_that_upset_a_terminal(tmp_path):
  folder = _write(tmp_path / 'a', 2, 'x\n\x1b[31m_{}.png')
  (folder / 'x\n\x1b[31m_2.png').write_bytes(b'')
  with pytest.raises(
    VideoError, match=r'its image x\\n\\x1b\[31m_2\.png cannot'
  ):
    FrameFolderReader(folder).read([1])


def test_only_what_is_needed_is_read(tmp_path):
  folder = _write(tmp_path / 'a', 6)
  for number in (1, 2, 4, 6):
    (folder / f'img_{number:05}.png').write_bytes(b'no picture')
  assert _numbers(FrameFolderReader(folder).read([2, 4])) == [2, 4]
  with pytest.raises(VideoError) as caught:
    FrameFolderReader(folder).read([2, 3])
  assert caught.value.name == str(folder) and not caught.value.passing
  assert caught.value.cause == (
    'its image img_00004.png cannot be used: it is no picture, or a damaged one'
  )


def test_images_that_cannot_be_used(tmp_path):
  folder = _write(tmp_path / 'a', 8, 'img_{}.jpg')

  def cause(index, count=1):
    with pytest.raises(VideoError) as caught:
      FrameFolderReader(folder).read(range(index, index + count))
    assert f'img_{index + count}.jpg' in caught.value.cause
    return caught.value.cause

  path = folder / 'img_1.jpg'
  path.write_bytes(path.read_bytes()[:-40])
  assert 'damaged' in cause(0)
  _write(folder, 1, 'img_{}.jpg', first=3, shape=(16, 16))
  assert 'it has 16 × 16 pixels, and others have 48 × 32' in cause(1, 2)
  (folder / 'img_4.jpg').unlink()
  os.mkfifo(folder / 'img_4.jpg')
  assert 'it is a named pipe; only regular files are read' in cause(3)
  (folder / 'img_5.jpg').unlink()
  (folder / 'img_5.jpg').symlink_to('/dev/zero')
  assert 'it is a device' in cause(4)
  (folder / 'img_6.jpg').unlink()
  (folder / 'img_6.jpg').symlink_to(folder / 'nowhere')
  assert 'No such file' in cause(5)
  (folder / 'img_7.jpg').write_bytes(b'')
  assert 'no picture' in cause(6)
  # A header that asks for 3.6 GB.
  png = cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes()
  size = (30_000).to_bytes(4, 'big') * 2
  head = png[12:16] + size + png[24:29]
  crc = __import__('zlib').crc32(head).to_bytes(4, 'big')
  (folder / 'img_8.jpg').write_bytes(png[:12] + head + crc + png[33:])
  assert 'pixels' in cause(7)


def test_folders_that_are_no_video(tmp_path):
  def cause(folder):
    with pytest.raises(VideoError) as caught:
      open_clip(Example('x', 0, str(folder)))
    return caught.value.cause

  (tmp_path / 'empty').mkdir()
  assert 'no numbered images' in cause(tmp_path / 'empty')
  both = _write(tmp_path / 'both', 3)
  (both / 'a.mp4').write_bytes(b'')
  assert 'holds videos, such as a.mp4' in cause(both)
  gap = _write(tmp_path / 'gap', 5)
  (gap / 'img_00003.png').unlink()
  assert 'the first is number 3' in cause(gap)


# Folders of data.


def test_what_a_folder_holds(tmp_path):
  _write(tmp_path / 'wave/video_2', 3)
  _write(tmp_path / 'wave/video_1', 3, 'frame_{:06}.jpg', first=0)
  (tmp_path / 'wave/video_1/notes.txt').touch()
  _write(tmp_path / 'wave/video_1', 3, 'flow_x_{:05}.jpg')
  _write(tmp_path / 'hug', 1, 'thumbnail{}.jpg')
  (tmp_path / 'hug/b.mp4').touch()
  _write(tmp_path / 'jump', 2)
  _write(tmp_path / 'jump/video_1', 2)
  _write(tmp_path / 'photos', 2, 'a{}.jpg')
  _write(tmp_path / 'photos', 2, 'b{}.jpg')
  (tmp_path / 'none').mkdir()
  found = folders.search(tmp_path)
  frames = ('jump', 'video_1'), ('wave', 'video_1'), ('wave', 'video_2')
  assert found.frame_folders == frames
  assert found.videos == (('hug', 'b.mp4'), *frames)
  told = found.left_out.describe()
  assert '3 images of optical flow: wave/video_1/flow_x_00001.jpg' in told
  assert '2 files that do not end as videos do (.jpg 1, .txt 1)' in told
  assert (
    '2 numbered images beside videos: jump/img_00001.png, jump/img_00002'
    in told
  )
  assert '4 images of several series in one folder: photos/a1.jpg' in told
  assert 'folders without a video: none' in told


def test_videos_of_two_kinds_are_told(tmp_path, caplog):
  _write(tmp_path / 'wave/video_1', 3)
  folders.search(tmp_path).tell(tmp_path)
  assert not caplog.text
  (tmp_path / 'hug').mkdir()
  (tmp_path / 'hug/b.mp4').touch()
  folders.search(tmp_path).tell(tmp_path)
  assert (
    'of 2 videos 1 are folders of numbered images, such as wave/video_1'
    in (caplog.text)
  )


def test_folders_beside_video_files_may_be_previews(tmp_path):
  _write(tmp_path / 'wave/thumbs', 3)
  (tmp_path / 'wave/b.mp4').touch()
  _write(tmp_path / 'hug/a', 3)
  found = folders.search(tmp_path)
  assert found.videos == (('hug', 'a'), ('wave', 'b.mp4'))
  assert found.frame_folders == (('hug', 'a'),)
  assert found.left_out.describe() == (
    '1 folders of images beside video files: wave/thumbs'
  )


def test_classes_and_splits(data):
  listing = sources.list_videos(data)
  assert listing.labels == ('bright', 'dark')
  assert [e.id for e in listing.splits['test'] if not e.label] == [
    f'test/bright/video_{i}' for i in range(3)
  ]


def test_a_class_that_holds_images_itself(tmp_path):
  _write(tmp_path / 'wave', 3)
  with pytest.raises(UserError, match=r'Left out are 1 .*: wave\.') as caught:
    sources.list_videos(tmp_path)
  assert 'a folder of numbered images is one video' in str(caught.value)
  for split in ('train', 'test'):
    _write(tmp_path / 'divided' / split / 'wave', 3)
  with pytest.raises(
    UserError, match='test/wave, a folder of numbered images, is one v'
  ):
    sources.list_videos(tmp_path / 'divided')
  with pytest.raises(
    UserError, match='is a folder of numbered images, that is'
  ):
    sources.list_videos(tmp_path / 'wave')
  # Beside others it is left out, and told.
  _write(tmp_path / 'two/hug/video_1', 3)
  _write(tmp_path / 'two/wave', 3)
  contents = folders.search(tmp_path / 'two')
  divided = class_folders.divide(
    tmp_path / 'two', contents.videos, (), contents.left_out
  )
  assert divided == {'': {'hug': ['hug/video_1']}}
  assert 'wave' in contents.left_out.describe()


def test_a_list_with_rates(tmp_path):
  _write(tmp_path / 'a', 30)
  _write(tmp_path / 'b', 30)
  path = tmp_path / 'clips.csv'
  path.write_text(
    'path,label,split,start,end,fps\na,wave,train,1,2,10\nb,hug,train,1,2,\n'
  )
  first, second = sources.open_source(tmp_path, 'train', fps=12.0).examples
  assert (first.fps, second.fps) == (10, 12)
  assert _numbers(open_clip(first).read([0, 9])) == [10, 19]
  with open_clip(second) as video:
    assert video.num_frames == 12 and _numbers(video.read([0])) == [12]
  for rate in ('fast', '0', '-1', 'nan', 'inf', '1e9'):
    path.write_text(f'path,label,fps\na,wave,25\nb,wave,{rate}\n')
    with pytest.raises(UserError, match=r'line 3: fps .* frames per second, a'):
      sources.list_videos(tmp_path)
  with pytest.raises(
    UserError, match=r'data\.frames_per_second \(=0\.0\) must'
  ):
    sources.list_videos(tmp_path, 0.0)


def test_training_and_evaluation(data):
  config = tiny_config(data, data__flip=False, train__num_steps=6)
  for batch in (pipeline.build(config, 'train')[k] for k in range(6)):
    assert not len(batch['broken'])
    assert batch['clips'].shape == (4, 4, 32, 32, 3)
    for row in _numbers(batch['clips'][..., 20:, :]):
      assert (np.diff(row) > 0).all()
  batches = pipeline.build(config, 'test')
  for batch in (batches[k] for k in range(len(batches))):
    assert batch['mask'][batch['ids'] != ''].all()
    for name, views in zip(batch['ids'], batch['clips'], strict=True):
      if name.endswith('video_0'):
        # 8 images: from 0 and from 1 on, every second one; the middle crop.
        middle = views[1::3][..., 20:, :]
        assert _numbers(middle) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_broken_folder_is_a_broken_video(data, tmp_path):
  shutil.copytree(data / 'test', tmp_path / 'test')
  (tmp_path / 'test/dark/video_1/4.png').unlink()
  batches = pipeline.build(tiny_config(tmp_path), 'test')
  broken = {}
  for batch in (batches[k] for k in range(len(batches))):
    broken |= dict(zip(batch['ids'], batch['broken'], strict=True))
  causes = {name: cause for name, cause in broken.items() if cause}
  assert list(causes) == ['test/dark/video_1']
  assert 'the first is number 4' in causes['test/dark/video_1']


def test_looking_at_a_data_set(data):
  probes = probing.probe(sources.open_source(data, 'train'))
  assert [p.frames for p in probes] == [8, 9, 12] * 2
  assert {(p.width, p.height) for p in probes} == {(48, 32)}
  assert probes[0].seconds == pytest.approx(8 / 25)


# Records.


def test_records_do_not_go_among_the_images(tmp_path):
  video = _write(tmp_path / 'wave/a', 3)
  listing = sources.list_videos(tmp_path)
  for out in (video, video.parent):
    with pytest.raises(UserError, match='holds the videos: give another folde'):
      preparation.write(listing, out)


@pytest.mark.parametrize('short_side', [0, 16])
def test_records_of_folders(data, tmp_path, short_side):
  listing = sources.list_videos(data, 10.0)
  manifest = preparation.write(
    listing, tmp_path / 'out', num_frames=9, short_side=short_side
  )
  assert manifest['splits']['test'] == {
    **{'written': 6, 'skipped': 0, 'missing': 0, 'broken': 0, 'short': 2},
    'classes': {'bright': 3, 'dark': 3},
  }
  source = sources.open_source(tmp_path / 'out', 'test')
  example = next(e for e in source if e.id == 'test/dark/video_2')
  assert isinstance(example.video, bytes) and example.fps is None
  with open_clip(example) as video:
    assert isinstance(video, VideoReader) and video.num_frames == 12
    np.testing.assert_allclose(video.times, np.arange(13) / 10)
    frames = video.read(range(12))
    assert frames.shape[1:3] == ((16, 24) if short_side else (32, 48))
    assert _numbers(frames[:, :, 16:]) == list(range(12))


def test_changed_images_are_recorded_anew(data, tmp_path):
  shutil.copytree(data / 'train', tmp_path / 'train')

  def inputs():
    listing = sources.list_videos(tmp_path)
    manifest = preparation.write(listing, tmp_path / 'out', num_shards=1)
    return [report['inputs'] for report in manifest['shards'].values()]

  before = inputs()
  assert inputs() == before
  _write(tmp_path / 'train/dark/video_0', 1, '{}.png', first=4, shape=(32, 48))
  assert inputs() != before


def test_the_encoder_refuses_frames_of_two_sizes(tmp_path):
  folder = _write(tmp_path / 'a', 4)
  _write(folder, 1, first=3, shape=(48, 48))
  with pytest.raises(
    VideoError, match='48 × 48 pixels, and others have 48 × 3'
  ):
    encoding.encode(FrameFolderReader(folder), 16)


def test_the_same_images_in_two_splits(data, tmp_path):
  shutil.copytree(data / 'train', tmp_path / 'train')
  copied = tmp_path / 'test/bright/copy'
  shutil.copytree(data / 'train/bright/video_1', copied)
  splits = sources.list_videos(tmp_path).splits
  (shared,) = shared_videos.find(splits, shared_videos.look_at_files(splits))
  assert (shared.one, shared.other, shared.count) == ('train', 'test', 1)


# What else reads videos.


def test_folders_to_predict(data, tmp_path):
  found, missing = find_videos([str(data / 'test/dark')])
  assert found == [str(data / f'test/dark/video_{i}') for i in range(3)]
  one = str(data / 'test/dark/video_0')
  assert find_videos([one]) == ([one], []) and not missing
  (tmp_path / 'empty').mkdir()
  _, ((_, why),) = find_videos([str(tmp_path / 'empty')])
  assert why == 'there is no video in this folder'


def test_a_prediction_a_moment_and_a_timeline(data):
  folder = data / 'test/dark/video_2'
  changes = {'data__frames_per_second': 10.0, 'eval__num_crops': 1}
  predictor = BrightnessPredictor(**changes)
  with FrameFolderReader(folder) as reader:
    frames = reader.read(range(12))
  prediction = predictor(str(folder))
  assert (prediction.title, prediction.seconds) == (str(folder), 1.2)
  expected = predictor(frames).probabilities
  np.testing.assert_array_equal(prediction.probabilities, expected)
  # Frames 2, 4, 6, 8: of ten a second, 0.5 s is the sixth.
  clip, seconds = predictor.central_clip(folder, at=0.5)
  np.testing.assert_allclose(seconds, [0.2, 0.4, 0.6, 0.8])
  assert _numbers(clip[..., 16:, :]) == [2, 4, 6, 8]
  judged = timeline.judge(predictor, folder)
  np.testing.assert_allclose(judged.starts, [0, 0.3, 0.5])
  np.testing.assert_allclose(judged.ends, [0.7, 1.0, 1.2])


def test_folders_that_cannot_be_predicted(data, tmp_path):
  predictor = BrightnessPredictor()
  with pytest.raises(
    InputError, match='cannot be read: it is a directory that'
  ):
    predictor(data / 'test')
  folder = shutil.copytree(data / 'test/dark/video_0', tmp_path / 'a')
  (folder / '3.png').write_bytes(b'x')
  with pytest.raises(InputError, match=r'its image 3\.png cannot be used'):
    predictor(folder)


def test_the_rate_of_a_run(tmp_path):
  config = tiny_config('')
  path = tmp_path / 'config.json'
  sections = json.loads(config.to_json_best_effort())
  del sections['data']['frames_per_second']
  path.write_text(json.dumps(sections))
  assert run_folder.read_config(path).data.frames_per_second == 25
  for wrong in (0, 'x', True, None, 1e9):
    sections['data']['frames_per_second'] = wrong
    path.write_text(json.dumps(sections))
    with pytest.raises(
      UserError, match=r'data\.frames_per_second of .* must be'
    ):
      run_folder.read_config(path)


def test_held_out_videos_keep_their_rate(tmp_path):
  for name in ('wave', 'hug'):
    for number in range(10):
      _write(tmp_path / f'data/train/{name}/{number}', 2)
  data, _ = own_videos.divide(tmp_path / 'data', tmp_path / 'made', 12.0)
  with open(f'{data}/clips.csv', encoding='utf-8') as file:
    assert {row['fps'] for row in csv.DictReader(file)} == {'12.0'}
  assert sources.open_source(data, 'test').examples[0].fps == 12


def test_videos_and_folders_of_their_frames_agree(tmp_path):
  images = np.full((12, 32, 48, 3), 0, np.uint8)
  images[...] = (5 * np.arange(12))[:, None, None, None]
  video = coded_video.write(tmp_path / 'a.mp4', images, options={'qp': '0'})
  with VideoReader(video) as reader:
    frames = reader.read(range(12))
  (tmp_path / 'a').mkdir()
  for i, frame in enumerate(frames):
    cv2.imwrite(str(tmp_path / f'a/{i}.png'), frame[..., ::-1])
  with FrameFolderReader(tmp_path / 'a') as reader:
    np.testing.assert_array_equal(reader.read(range(12)), frames)
