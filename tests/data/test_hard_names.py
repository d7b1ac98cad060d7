"""Names that are hard to write down, many of them, and classes without any."""

import csv
import os

import numpy as np
import pytest

from configs import base
from mtnet_jax import metrics
from mtnet_jax.data import pipeline, preparation, sources
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import report
from mtnet_jax.evaluation.predictions import Predictions, write_predictions
from tests.data import coded_video

_NAMES = (
  "it's, or \"not\"", '-rf', '100 %', '#1', '%03d', 'Größe 漢字', '[b]', '$x$',
  'a:b', 'file:c', '~', '*?', 'a\\b', 'd..', '{e}', 'semi;colon',
)  # fmt: skip


def _per_class(predictions, labels, directory):
  write_predictions(predictions, labels, directory)
  with (directory / 'per_class.csv').open(newline='') as file:
    return {row['class']: float(row['top1']) for row in csv.DictReader(file)}


def _perfect(source):
  labels = np.array([example.label for example in source])
  return Predictions(
    ids=np.array([example.id for example in source]),
    labels=labels,
    probabilities=np.eye(len(source.labels))[labels],
    broken={f'{_NAMES[0]}.mp4': 'no video'},
  )


@pytest.fixture(scope='module')
def named(tmp_path_factory):
  """A video in a class of each of the names, in a folder and in a CSV file."""
  root = tmp_path_factory.mktemp('named')
  video = coded_video.write(root / 'a.bin.mp4', coded_video.frames(12))
  rows = [('path', 'label', 'split')]
  for name in _NAMES:
    path = root / 'folder/train' / name / f'{name}.mp4'
    path.parent.mkdir(parents=True)
    os.link(video, path)
    rows.append((f'folder/train/{name}/{name}.mp4', name, 'train'))
  with (root / 'clips.csv').open('w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(rows)
  return root


@pytest.mark.parametrize('form', ['folder', 'clips.csv'])
def test_names_of_classes_and_files(named, form, tmp_path, capsys):
  plain = sources.open_source(named / form, 'train')
  preparation.write(sources.list_videos(named / form), tmp_path / 'out')
  packed = sources.open_source(tmp_path / 'out', 'train')
  expected = {f'train/{name}/{name}.mp4': name for name in _NAMES}
  for source in (plain, packed):
    assert source.labels == tuple(sorted(_NAMES))
    assert {
      example.id.removeprefix('folder/'): source.labels[example.label]
      for example in source
    } == expected
    for example in source:
      with VideoReader(example.video) as video:
        assert video.num_frames == 12
  predictions = _perfect(packed)
  found = _per_class(predictions, packed.labels, tmp_path / 'evaluation')
  assert found == dict.fromkeys(_NAMES, 1.0)
  report.show(predictions, packed.labels, tmp_path)
  shown = capsys.readouterr().out
  for name in _NAMES:
    assert name in shown


def test_names_from_the_folder_that_one_is_in(named, monkeypatch):
  for name in ('a:b', '-rf', '%03d'):
    monkeypatch.chdir(named / 'folder/train' / name)
    with VideoReader(f'{name}.mp4') as video:
      assert coded_video.numbers(video.read([11])) == [11]


def test_names_that_are_not_utf_8(tmp_path, capsys):
  path = (
    tmp_path / 'videos' / os.fsdecode(b'caf\xe9') / os.fsdecode(b'\xff.mp4')
  )
  path.parent.mkdir(parents=True)
  for _ in range(3):  # so that the class is divided
    coded_video.write(path, coded_video.frames(12))
    path = path.with_name(f'1{path.name}')
  listing = sources.list_videos(tmp_path / 'videos')
  preparation.write(listing, tmp_path / 'out')
  for directory in ('videos', 'out'):
    source = sources.open_source(tmp_path / directory, 'train')
    assert source.labels == ('caf\\xe9',)
    assert source[0].id.startswith('caf\\xe9/')
    assert source[0].id.endswith('\\xff.mp4')
    report.show(_perfect(source), source.labels, tmp_path)
  assert 'caf\\xe9' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['two\nlines', ' blank', 'blank ', 'a\x85b'])
def test_names_of_classes_that_no_line_can_hold(tmp_path, name):
  (tmp_path / name).mkdir()
  (tmp_path / name / '1.mp4').touch()
  with pytest.raises(UserError, match='must be one line without blanks'):
    sources.list_videos(tmp_path)


def test_a_file_name_of_two_lines(tmp_path):
  (tmp_path / 'wave').mkdir()
  path = tmp_path / 'wave' / 'two\nlines.mp4'
  coded_video.write(path, coded_video.frames(12))
  (example,) = sources.open_source(tmp_path, 'train')
  assert example.id == 'wave/two\nlines.mp4'
  with VideoReader(example.video) as video:
    assert video.num_frames == 12


# Many.


@pytest.fixture(scope='module')
def many(tmp_path_factory):
  """10,000 entries in 50 classes, of which 8,000 are for training."""
  root = tmp_path_factory.mktemp('many')
  (root / 'one').write_text('no video')
  rows = ['path,label,split']
  for split, count in (('train', 160), ('val', 20), ('test', 20)):
    for label in range(50):
      (root / f'videos/{split}/{label:02}').mkdir(parents=True)
      for number in range(count):
        path = f'videos/{split}/{label:02}/{number}.mp4'
        os.link(root / 'one', root / path)
        rows.append(f'{path},{label:02},{split}')
  (root / 'clips.csv').write_text('\n'.join(rows))
  return root


@pytest.mark.parametrize('form', ['videos', 'clips.csv'])
def test_ten_thousand_videos_are_listed_and_none_is_opened(
  many, form, monkeypatch
):
  def refuse(self, *unused):
    raise AssertionError('a video was opened')

  monkeypatch.setattr(VideoReader, '__init__', refuse)
  config = base.get_config()
  config.data.dir = str(many / form)
  training = pipeline.build(config, 'train')
  assert (training.num_videos, len(training.labels)) == (8_000, 50)
  counts = np.bincount([example.label for example in training.source])
  assert counts.tolist() == [160] * 50
  for split in ('val', 'test'):
    assert pipeline.build(config, split).num_videos == 1_000


# Twice, and nowhere.


def test_one_clip_under_two_spellings(tmp_path):
  (tmp_path / 'a.mp4').touch()
  for rows in ('a.mp4,x,train,,\n./a.mp4,y,val,,\n',
               'a.mp4,x,train,,2\na.mp4,y,val,0,2\n'):  # fmt: skip
    (tmp_path / 'clips.csv').write_text(f'path,label,split,start,end\n{rows}')
    with pytest.raises(UserError, match=r'line 3: .*there already, in line 2'):
      sources.list_videos(tmp_path)


def test_a_class_that_labels_txt_names_twice(tmp_path):
  (tmp_path / 'clips.csv').write_text('path,label,split\na.mp4,hug,train\n')
  (tmp_path / 'labels.txt').write_text('hug\nkick\nhug\n')
  with pytest.raises(UserError, match=r"labels\.txt names .* 'hug' twice"):
    sources.list_videos(tmp_path)


def test_a_class_without_training_videos_is_named(tmp_path, caplog):
  for name in ('train/hug/1.mp4', 'val/wave/2.mp4', 'test/jump/3.mp4'):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
  sources.open_source(tmp_path, 'val')
  assert 'cannot be learned' not in caplog.text
  source = sources.open_source(tmp_path, 'train')
  assert source.labels == ('hug', 'jump', 'wave')
  assert '2 of 3 classes have no training video' in caplog.text
  assert caplog.text.rstrip().endswith('cannot be learned: jump, wave')


def test_a_class_without_test_videos_has_no_row(tmp_path, capsys):
  predictions = Predictions(
    ids=np.array(['a', 'b', 'c']),
    labels=np.array([0, 0, 2]),
    probabilities=np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]]),
    broken={},
  )
  names = ('hug', 'jump', 'wave')
  found = _per_class(predictions, names, tmp_path)
  assert found == {'hug': 0.5, 'wave': 1.0}
  assert predictions.accuracy() == pytest.approx(2 / 3)
  matrix = metrics.confusion_matrix(
    predictions.predicted, predictions.labels, 3
  )
  assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
  report.write(predictions, names, tmp_path)
  report.show(predictions, names, tmp_path)
  assert 'jump' not in capsys.readouterr().out
