"""A folder of records whose labels.txt, or labels, are not what was written."""

import msgpack
import pytest
from array_record.python import array_record_module

from configs import base
from mtnet_jax.data import (
  class_names,
  loading,
  pipeline,
  preparation,
  records,
  sources,
)
from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError
from mtnet_jax.runs import folder


@pytest.fixture
def prepared(blinking_videos, tmp_path):
  """Records of the classes bright and dark, 8 + 2 + 4 videos of each."""
  out = tmp_path / 'records'
  preparation.write(sources.list_videos(blinking_videos), out)
  return out


def test_numbers_of_videos_come_from_the_manifest(prepared, caplog):
  caplog.set_level('INFO', 'absl')
  caplog.set_level('INFO')
  sources.open_source(prepared, 'test')
  assert 'test: 8 videos of 2 classes: bright 4, dark 4' in caplog.text
  (prepared / 'manifest.json').unlink()
  sources.open_source(prepared, 'train')
  assert 'train: 2 classes: bright, dark' in caplog.text


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'dark\n', 'it names 1 classes, manifest.json 2, missing are bright'),
    (b'bright\n\n', 'missing are dark'),
    (b'dark\nbright\n', 'the same in another order'),
    (b'bright\ndark\ngray\n', 'new are gray'),
    (b'bright\nbright\n', "names the class 'bright' twice"),
    (b'', 'names no class'),
    (b'\xff\xfeb\0r\0', 'is not UTF-8'),
  ],
)
def test_labels_txt_that_was_changed(prepared, content, message):
  (prepared / 'labels.txt').write_bytes(content)
  with pytest.raises(UserError, match=message):
    sources.open_source(prepared, 'train')


@pytest.mark.parametrize(
  'content',
  [b'\xef\xbb\xbfbright\ndark\n', b'bright\r\ndark', b'bright\ndark'],
)
def test_labels_txt_of_another_editor(prepared, content):
  (prepared / 'labels.txt').write_bytes(content)
  assert sources.open_source(prepared, 'train').labels == ('bright', 'dark')


def test_a_manifest_of_something_else_is_none(prepared):
  for text in ('no JSON', '[]', '{"labels": 3}', '{}'):
    (prepared / 'manifest.json').write_text(text)
    assert len(sources.open_source(prepared, 'train')) == 16


@pytest.mark.parametrize('label', [2, -1, 'dark', None])
@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_label_out_of_range_names_its_record(
  blinking_videos, tmp_path, label, num_workers
):
  video = (blinking_videos / 'train/dark/0.mp4').read_bytes()
  examples = [Example('a.mp4', 0, video), Example('b.mp4', label, video)]
  records.write(tmp_path / records.shard_name('val', 0, 1), examples)
  (tmp_path / 'labels.txt').write_text('bright\ndark\n')
  if num_workers and label != 2:
    pytest.skip('one is enough')
  config = base.get_config()
  config.data.dir = str(tmp_path)
  config.eval.crop_size = config.eval.input_size = 32
  batches = pipeline.build(config, 'val')
  with pytest.raises(UserError, match=r"'b\.mp4' has the label .* 2 classes"):
    list(loading.iterate(batches, num_workers=num_workers))


def test_a_record_of_another_program(tmp_path):
  path = tmp_path / records.shard_name('val', 0, 1)
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  for content in ({'name': 'a'}, [1, 2], 3):
    writer.write(msgpack.packb(content))
  writer.close()
  (tmp_path / 'labels.txt').write_text('up\n')
  source = sources.open_source(tmp_path, 'val')
  for index in range(3):
    with pytest.raises(VideoError, match=f'record {index}'):
      source[index]


def test_a_byte_order_mark_in_a_run(tmp_path):
  path = tmp_path / 'labels.txt'
  path.write_bytes(b'\xef\xbb\xbfhug\r\nkick\r\n')
  assert folder.read_class_names(path) == ('hug', 'kick')
  folder.check_class_names(tmp_path, ('hug', 'kick'))
  path.write_bytes(b'hug\nhug\n')
  with pytest.raises(UserError, match='twice'):
    folder.check_class_names(tmp_path, ('hug', 'kick'))


def test_differences_are_named():
  assert class_names.differences('abc', 'bcd') == 'new are d; missing are a'
