"""What TensorFlow Datasets has built, in its format, without TensorFlow."""

import json
import pickle
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
from array_record.python import array_record_module

from configs import base
from mtnet_jax.data import loading, pipeline, sources, tfds_source
from mtnet_jax.data.tfds_source import FramesReader
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError

_LABELS = ('ApplyEyeMakeup', 'Archery', 'YoYo')
_KINDS = 'tensorflow_datasets.core.features'


def _coded(levels, suffix='.png', size=(24, 32)):
  """A frame of one gray level each, coded as an image file."""
  images = [np.full((*size, 3), level, np.uint8) for level in levels]
  return [cv2.imencode(suffix, image)[1].tobytes() for image in images]


# A tf.train.Example, put together by protobuf's rules.


def _varint(value):
  low, rest = value & 127, value >> 7
  return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _field(number, contents):
  return _varint(number << 3 | 2) + _varint(len(contents)) + contents


def _example(**features):
  entries = b''
  for name, values in features.items():
    if isinstance(values[0], bytes):
      feature = _field(1, b''.join(_field(1, value) for value in values))
    elif isinstance(values[0], float):
      feature = _field(2, _field(1, np.float32(values).tobytes()))
    else:  # packed
      feature = _field(3, _field(1, b''.join(map(_varint, values))))
    entries += _field(1, _field(1, name.encode()) + _field(2, feature))
  return _field(1, entries)


def _write_shards(folder, split, shards, file_format='array_record'):
  for number, examples in enumerate(shards):
    name = f'ucf101-{split}.{file_format}-{number:05}-of-{len(shards):05}'
    path = str(folder / name)
    writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
    for example in examples:
      writer.write(example)
    writer.close()


@pytest.fixture
def built(tmp_path, monkeypatch):
  """UCF-101 as TFDS builds it, 3 + 2 and 1 videos of 20 to 25 frames."""
  folder = tmp_path / 'ucf101/ucf101_1/2.0.0'
  folder.mkdir(parents=True)
  videos = [
    _example(video=_coded(range(i, 220, 11 - i // 4)), label=[i % 3])
    for i in range(6)
  ]
  _write_shards(folder, 'train', [videos[:3], videos[3:5]])
  _write_shards(folder, 'test', [videos[5:]])
  info = {
    'fileFormat': 'array_record',
    'name': 'ucf101',
    'splits': [
      {'name': 'train', 'shardLengths': ['3', '2']},
      {'name': 'test', 'shardLengths': ['1']},
    ],
    'version': '2.0.0',
  }
  video = {'dtype': 'uint8', 'encodingFormat': 'jpeg'}
  features = {
    'label': {
      'pythonClassName': f'{_KINDS}.class_label_feature.ClassLabel',
      'classLabel': {'numClasses': '3'},
    },
    'video': {
      'pythonClassName': f'{_KINDS}.video_feature.Video',
      'video': video,
    },
  }
  features = {'featuresDict': {'features': features}}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  (folder / 'features.json').write_text(json.dumps(features))
  (folder / 'label.labels.txt').write_text('\n'.join(_LABELS))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  return folder


def test_a_split_as_a_source(built):
  source = sources.open_source('tfds:ucf101', 'train')
  assert source.labels == _LABELS
  assert len(source) == 5
  assert [(e.id, e.label) for e in source.examples] == [
    ('train/0', 0),
    ('train/1', 1),
    ('train/2', 2),
    ('train/3', 0),
    ('train/4', 1),
  ]
  dumped = pickle.dumps(source)  # as it goes to loader processes
  assert len(dumped) < 2000
  with FramesReader(pickle.loads(dumped)[4].video) as video:
    frames = video.read(range(video.num_frames))
  assert frames.shape == (22, 24, 32, 3) and frames.dtype == np.uint8
  assert frames[:, 0, 0, 0].tolist() == [*range(4, 220, 10)]
  with pytest.raises(IndexError, match='Video 5 of 5'):
    source[5]


def test_batches_of_it(built):
  config = base.get_config()
  config.data.update(dir='tfds:ucf101', num_frames=4, frame_stride=2)
  config.data.update(short_side=24, crop_size=24, input_size=24, flip=False)
  config.train.update(batch_size=5, num_steps=1)
  config.eval.update(num_clips=2, num_crops=1, crop_size=24, input_size=24)
  (batch,) = loading.iterate(pipeline.build(config, 'train'))
  assert sorted(batch['ids']) == [f'train/{i}' for i in range(5)]
  assert batch['clips'].shape == (5, 4, 24, 24, 3)
  for clip in batch['clips']:  # brighter from frame to frame
    assert (np.diff(clip[:, 0, 0, 0].astype(int)) > 0).all()
  batch = pipeline.build(config, 'test')[0]
  # Seven frames a view, at both ends of levels 5, 15, 25, … 215.
  first, last = batch['clips'][0, :, :, 0, 0, 0].tolist()
  assert first == [5, 25, 45, 65] and last == [155, 175, 195, 215]


def test_names_of_configuration_version_and_folder(built, tmp_path):
  default = tmp_path / 'ucf101/.config'
  default.mkdir()
  text = json.dumps({'default_config_name': 'ucf101_1_256'})
  (default / 'metadata.json').write_text(text)  # and is not built
  assert len(sources.open_source('tfds:ucf101', 'test')) == 1
  (default / 'metadata.json').unlink()

  other = tmp_path / 'ucf101/ucf101_2/1.0.0'
  other.mkdir(parents=True)
  names = (
    'ucf101/ucf101_1',
    'ucf101/ucf101_1/2.0.0',
    f'{tmp_path}/ucf101/ucf101_1',
  )
  for name in names:
    assert len(sources.open_source(f'tfds:{name}', 'test')) == 1
  with pytest.raises(UserError, match=r'no dataset_info\.json in .*/ucf101\. '):
    sources.open_source('tfds:ucf101', 'test')  # which of two?
  text = json.dumps({'default_config_name': 'ucf101_1'})
  (default / 'metadata.json').write_text(text)
  assert len(sources.open_source('tfds:ucf101', 'test')) == 1
  built.rename(built.with_name('10.0.0'))
  built.mkdir()  # 10 is newer than 2
  assert len(sources.open_source('tfds:ucf101', 'test')) == 1


def test_what_is_not_there_is_named(built, tmp_path):
  with pytest.raises(UserError, match=r"split 'validation'; it has: test, tr"):
    sources.open_source('tfds:ucf101', 'val')
  for name in ('ucf102', 'ucf101/ucf101_9', ''):
    message = f'has not built tfds:{name}: .*tfds build {name or "NAME"} --file'
    with pytest.raises(UserError, match=message):
      sources.open_source(f'tfds:{name}', 'train')
  built.joinpath('ucf101-test.array_record-00000-of-00001').rename(
    built / 'ucf101-test.tfrecord-00000-of-00001'
  )
  with pytest.raises(UserError, match='array_record-00000-of-00001 is missing'):
    sources.open_source('tfds:ucf101', 'test')
  second = built / 'ucf101-train.array_record-00001-of-00002'
  second.write_bytes(second.read_bytes()[:500])
  with pytest.raises(UserError, match='no whole record files'):
    sources.open_source('tfds:ucf101', 'train')


def test_other_features(built):
  path = built / 'features.json'
  features = json.loads(path.read_text())
  del features['featuresDict']['features']['video']
  path.write_text(json.dumps(features))
  with pytest.raises(UserError, match=r'one Video and .* has: label \(ClassLa'):
    sources.open_source('tfds:ucf101', 'train')
  path.write_text('{')
  with pytest.raises(UserError, match=r'features\.json cannot be read'):
    sources.open_source('tfds:ucf101', 'train')


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('features.json', '{}'),
    ('features.json', '{"featuresDict": {"features": ["video", "label"]}}'),
    ('features.json', '{"featuresDict": {"features": {"video": {}}}}'),
    ('dataset_info.json', '[]'),
    ('dataset_info.json', '{"name": "ucf101"}'),
    ('dataset_info.json', '{"name": "ucf101", "splits": [{"name": "train"}]}'),
    ('label.labels.txt', ''),
    ('label.labels.txt', None),
  ],
)
def test_files_that_are_not_as_tfds_writes_them(built, name, text):
  path = built / name
  if text:
    path.write_text(text)
  elif text is None:
    path.unlink()
  else:
    path.write_bytes(b'\xff')
  message = rf'{name} cannot be read: .*, have TFDS build the data set again'
  with pytest.raises(UserError, match=message):
    sources.open_source('tfds:ucf101', 'train')


def test_a_default_configuration_without_a_name(built, tmp_path):
  (tmp_path / 'ucf101/ucf101_2').mkdir()
  (tmp_path / 'ucf101/.config').mkdir()
  (tmp_path / 'ucf101/.config/metadata.json').write_text('{}')
  with pytest.raises(UserError, match=r'metadata\.json cannot be read: KeyErr'):
    sources.open_source('tfds:ucf101', 'train')


def test_the_message_format():
  record = _example(
    text=['ä'.encode()], numbers=[0, 1, 300, 2**40], other=[0.5, 1.5]
  )
  assert tfds_source._parse_example(record) == {
    'text': ['ä'.encode()],
    'numbers': [0, 1, 300, 2**40],
  }
  unpacked = _field(3, b''.join(b'\x08' + _varint(i) for i in (5, 500)))
  record = _field(1, _field(1, _field(1, b'label') + _field(2, unpacked)))
  assert tfds_source._parse_example(record) == {'label': [5, 500]}


def test_damaged_records_are_told_apart(built):
  contents = _example(video=_coded([1, 2]), label=[1])
  for cut in (10, len(contents) - 3):
    _write_shards(built, 'test', [[contents[:cut]]])
    with pytest.raises(VideoError, match='test/0: damaged'):
      sources.open_source('tfds:ucf101', 'test')[0]
  # A feature's name is an integer.
  feature = _field(2, _field(1, _field(1, b'')))
  strange = _field(1, _field(1, b'\x08\x01' + feature))
  _write_shards(built, 'test', [[strange]])
  with pytest.raises(VideoError, match='test/0: damaged'):
    sources.open_source('tfds:ucf101', 'test')[0]
  _write_shards(built, 'test', [[_example(label=[1])]])
  with pytest.raises(VideoError, match=r"damaged: KeyError\('video'\)"):
    sources.open_source('tfds:ucf101', 'test')[0]


def test_frames_are_read_by_number():
  frames = _coded(range(0, 200, 10), '.jpg')
  with FramesReader(frames) as video:
    assert (video.num_frames, video.width, video.height) == (20, 32, 24)
    assert np.isnan(video.fps)
    read = video.read([3, 3, 0, 19])
    assert read.shape == (4, 24, 32, 3)
    assert read[:, 5, 5, 1].tolist() == [30, 30, 0, 190]
    with pytest.raises(IndexError, match='which has 20'):
      video.read([20])


def test_only_the_frames_asked_for_are_decoded():
  frames = _coded([50] * 5)
  frames[2] = b'no image'
  with FramesReader(frames, 'train/7') as video:
    assert len(video.read([0, 1, 3, 4])) == 4
    with pytest.raises(VideoError, match='train/7: frame 2 of 5 cannot be dec'):
      video.read([1, 2])
  frames[3] = b''
  with pytest.raises(VideoError, match='frame 3 of 5'):
    FramesReader(frames).read([3])
  with pytest.raises(VideoError, match='no frame in it'):
    FramesReader([])
  with pytest.raises(VideoError, match='differ in size'):
    FramesReader(_coded([1]) + _coded([1], size=(24, 30))).read([0, 1])


def test_colors_and_sizes():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)  # RGB
  coded = cv2.imencode('.png', image[:, :, ::-1])[1].tobytes()
  gray = cv2.imencode('.png', image[:, :, 0])[1].tobytes()
  with FramesReader([coded, gray]) as video:
    np.testing.assert_array_equal(video.read([0])[0], image)
    assert video.read([1]).shape == (1, 24, 32, 3)
    # Half the size: what two by two pixels are on average.
    means = image.reshape(12, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(video.read([0], 12)[0] - means).max() <= 0.5
    assert video.read([0], 30).shape == (1, 30, 40, 3)


def test_tensorflow_is_not_loaded(built, root):
  code = """
import sys
from mtnet_jax.data import sources
sources.open_source('tfds:ucf101', 'train')[0]
print([m for m in ('tensorflow', 'tensorflow_datasets') if m in sys.modules])
"""
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.stdout.strip() == '[]', done.stderr


def test_what_tfds_itself_writes(tmp_path, monkeypatch):
  tfds = pytest.importorskip('tensorflow_datasets')
  from tensorflow_datasets.core.features import feature, video_feature

  # All that TFDS asks TensorFlow for here is the name of a dtype.
  dtypes = types.SimpleNamespace(as_dtype=np.dtype, DType=np.dtype)
  for module in (feature, video_feature):
    monkeypatch.setattr(module, 'tf', types.SimpleNamespace(dtypes=dtypes))
  features = tfds.features.FeaturesDict(
    {
      'video': tfds.features.Video(
        (None, None, None, 3), encoding_format='jpeg'
      ),
      'label': tfds.features.ClassLabel(names=_LABELS),
    }
  )
  folder = tmp_path / 'mine/1.2.0'
  folder.mkdir(parents=True)
  frames = _coded(range(0, 200, 10), '.jpg')
  coded = features.encode_example({'video': frames, 'label': 'YoYo'})
  example = features.serialize_example(coded)
  _write_shards(folder, 'validation', [[example], [example, example]])
  template = tfds.core.ShardedFileTemplate(
    dataset_name='ucf101',
    data_dir=folder,
    split='validation',
    filetype_suffix='array_record',
  )
  split = tfds.core.SplitInfo(
    name='validation',
    shard_lengths=[1, 2],
    num_bytes=0,
    filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=[split], check_data=False
  )
  source = sources.open_source(f'tfds:{tmp_path}/mine', 'val')
  assert (source.labels, len(source)) == (_LABELS, 3)
  assert source[2].id == 'validation/2' and source[2].label == 2
  assert source[2].video == tuple(frames)
