"""Predictions are evaluation's, of whatever holds the frames."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.data import pipeline
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError, printable
from mtnet_jax.evaluation import scoring
from mtnet_jax.export import program as program_lib
from mtnet_jax.prediction import Prediction, Predictor, timeline
from mtnet_jax.prediction.user_videos import InputError, find_videos
from tests.data import coded_video
from tests.prediction_runs import BrightnessPredictor, write_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def run(blinking_videos, tmp_path_factory):
  """The workdir and the configuration of a run."""
  workdir = tmp_path_factory.mktemp('run')
  return workdir, write_run(workdir, blinking_videos)


@pytest.fixture(scope='module')
def predictor(run):
  return Predictor(run[0])


@pytest.fixture(scope='module')
def video(blinking_videos):
  return blinking_videos / 'test/bright/0.mp4'


def _frames(path):
  with VideoReader(path) as reader:
    return reader.read(range(reader.num_frames))


def test_the_same_probabilities_as_evaluation(run, predictor, blinking_videos):
  workdir, config = run
  expected, names = scoring.evaluate(config, workdir)
  assert predictor.class_names == names and len(expected.ids) == 8
  assert np.ptp(expected.probabilities[:, 0]) > 1e-3  # videos do differ
  for name, probabilities in zip(
    expected.ids, expected.probabilities, strict=True
  ):
    got = predictor(blinking_videos / name)
    assert got.title == str(blinking_videos / name) and got.note == ''
    assert got.probabilities.dtype == np.float32
    np.testing.assert_allclose(got.probabilities, probabilities, atol=1e-6)


def test_the_same_views_as_evaluation(run, predictor, blinking_videos):
  dataset = pipeline.build_evaluation(run[1], 'test')
  name, clips = dataset[3]['ids'][0], dataset[3]['clips'][0]
  assert clips.shape == (6, 4, 32, 32, 3)
  views = predictor.views(blinking_videos / name)
  np.testing.assert_array_equal(views, clips)
  # In memory the frames are as good as in the file.
  frames = _frames(blinking_videos / name)
  np.testing.assert_array_equal(predictor.views(frames), clips)


def test_an_exported_model_says_the_same(run, predictor, video, tmp_path):
  program_lib.write_export(
    tmp_path / 'export',
    predictor.model,
    predictor.variables,
    predictor.config,
    predictor.class_names,
    step=7,
  )
  expected = predictor(video).probabilities
  (tmp_path / 'checkpoints').mkdir()  # where none was finished
  for place in (tmp_path, tmp_path / 'export'):
    exported = Predictor(place)
    assert exported.model is None and exported.variables is None
    assert exported.class_names == predictor.class_names
    assert exported.config.eval.num_crops == 3
  got = exported(video).probabilities
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_top_classes():
  prediction = Prediction(
    'x.mp4', ('a', 'b', 'c'), np.array([0.25, 0.5, 0.25], np.float32)
  )
  assert prediction.top(2) == [('b', 0.5), ('a', 0.25)]
  assert len(prediction.top()) == 3


def test_the_network_sees_two_shapes_whatever_the_videos(run, monkeypatch):
  predictor = Predictor(run[0], num_clips=1)  # by three crops, of four allowed
  shapes = []

  def classify(clips):
    shapes.append(clips.shape[0])
    return jnp.full((len(clips), 2), 0.5)

  monkeypatch.setattr(predictor, '_classify', classify)
  for count in (9, 20, 33):
    video = np.zeros((count, 32, 48, 3), np.uint8)
    predictor(video)
    for window in (None, 0.6):
      timeline.judge(predictor, video, window)
  assert set(shapes) == {3}
  one = predictor.probabilities(predictor.central_clip(video)[0][None])
  none = predictor.probabilities(np.zeros((0, 4, 32, 32, 3), np.uint8))
  assert (one.shape, none.shape) == ((1, 2), (0, 2)) and set(shapes) == {1, 3}


def test_numbers_that_overflow_on_one_video(predictor, video, monkeypatch):
  monkeypatch.setattr(
    predictor, '_classify', lambda clips: jnp.full((len(clips), 2), jnp.nan)
  )
  with pytest.raises(InputError, match='not finite: its numbers overflow'):
    predictor(video)


# What takes no network.


def test_fewer_views(run):
  predictor = Predictor(run[0], num_clips=1, num_crops=1)
  assert predictor.views(np.zeros((20, 32, 48, 3), np.uint8)).shape[0] == 1
  with pytest.raises(UserError, match=r'eval\.num_clips \(=-1\)'):
    Predictor(run[0], num_clips=-1)


def test_the_central_clip_is_evaluations_single_view(
  blinking_videos, video, run
):
  config = run[1].copy_and_resolve_references()
  with config.unlocked():
    config.eval.update(num_clips=1, num_crops=1)
  expected = pipeline.build_evaluation(config, 'test')[0]
  clip, seconds = BrightnessPredictor().central_clip(video)
  assert expected['ids'][0] == 'test/bright/0.mp4'
  np.testing.assert_array_equal(clip, expected['clips'][0, 0])
  # 12 frames, span 7: frames 2, 4, 6, 8 at 10 a second.
  np.testing.assert_allclose(seconds, [0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
  ('at', 'first'), [(0, 0), (0.5, 2), (0.9, 5), (1.2, 5)]
)
def test_a_clip_about_a_moment(video, at, first):
  clip, seconds = BrightnessPredictor().central_clip(video, at=at)
  frames = first + 2 * np.arange(4)
  np.testing.assert_allclose(seconds, frames / 10)
  # 48 × 32: the middle crop begins at column 8.
  np.testing.assert_array_equal(clip, _frames(video)[frames][:, :, 8:40])


@pytest.mark.parametrize(
  ('at', 'first'), [(0.5, 7), (1.0, 17), (1.99, 18), (3.2, 21), (30, 24)]
)
def test_a_clip_about_a_moment_of_a_still(tmp_path, at, first):
  # 20 frames a second, two a second from 1 s on, and the last but one is still.
  stamps = [*range(0, 1000, 50), *range(1000, 6000, 500), 40_000]
  levels = 4 * np.arange(len(stamps), dtype=np.uint8)
  images = levels[:, None, None, None] + np.zeros((1, 32, 32, 3), np.uint8)
  path = coded_video.write(tmp_path / 'a.mp4', images, stamps=stamps)
  clip, seconds = BrightnessPredictor().central_clip(path, at=at)
  frames = first + 2 * np.arange(4)
  np.testing.assert_allclose(seconds, np.array(stamps)[frames] / 1000)
  np.testing.assert_allclose(clip.mean(axis=(1, 2, 3)), levels[frames], atol=3)
  with pytest.raises(InputError, match=r'lasts 4\d.* s, 60 s is not'):
    BrightnessPredictor().central_clip(path, at=60)


def test_a_moment_that_the_video_has_not(video):
  with pytest.raises(InputError, match=r'lasts 1\.20 s, 1\.3 s is not in it'):
    BrightnessPredictor().central_clip(video, at=1.3)


def test_a_video_shorter_than_a_clip_repeats_its_frames():
  frames = np.full((2, 32, 32, 3), [[[[40]]], [[[200]]]], np.uint8)
  predictor = BrightnessPredictor(eval__num_clips=1, eval__num_crops=1)
  views = predictor.views(frames)
  assert views[0, :, 0, 0, 0].tolist() == [40, 40, 200, 200]
  prediction = predictor(frames)
  assert prediction.note == (
    'shorter than a clip: its 2 frames are repeated to 4'
  )
  np.testing.assert_allclose(prediction.probabilities[0], 120 / 255, rtol=1e-6)
  refusing = BrightnessPredictor(data__short_videos='error')
  for ask in (refusing, refusing.views, refusing.central_clip):
    with pytest.raises(InputError, match='has 2 frames, a clip has 4, and'):
      ask(frames)


def test_a_long_video_is_pointed_to_a_timeline():
  predictor = BrightnessPredictor()
  assert predictor(np.zeros((70, 32, 32, 3), np.uint8)).note == ''
  note = predictor(np.zeros((100, 32, 32, 3), np.uint8)).note
  assert note.startswith('4 s long, and a clip is 0.3 s')


def test_a_constant_video(predictor):
  for level in (0, 255):
    prediction = predictor(np.full((9, 40, 56, 3), level, np.uint8))
    assert prediction.title == 'the array'
    np.testing.assert_allclose(prediction.probabilities.sum(), 1, atol=1e-6)


def test_weights_that_are_not_finite(run, video):
  broken = Predictor(run[0])
  broken.variables = jax.tree.map(
    lambda leaf: jnp.full_like(leaf, jnp.nan), broken.variables
  )
  with pytest.raises(UserError) as caught:
    broken(video)
  assert not isinstance(caught.value, InputError)  # no video will do better
  message = str(caught.value)
  assert message.startswith(f'The output of the best checkpoint of {run[0]} is')
  assert 'its weights hold NaN' in message


# What cannot be read.


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((4, 8, 8, 3)), r'float64 \(4, 8, 8, 3\); allowed is uint8'),
    (np.zeros((4, 3, 8, 8), np.uint8), r'uint8 \(4, 3, 8, 8\); allowed'),
    (np.zeros((8, 8, 3), np.uint8), r'uint8 \(8, 8, 3\); allowed'),
    (np.zeros((0, 8, 8, 3), np.uint8), r'is empty, of shape \(0, 8, 8, 3\)'),
    ([[1, 2]], 'a path or a numpy array, given list'),
    (b'x.mp4', 'a path or a numpy array, given bytes'),
  ],
)
def test_arrays_that_are_no_video(array, message):
  with pytest.raises(InputError, match=message):
    BrightnessPredictor()(array)


def test_an_array_in_a_file(tmp_path, video):
  predictor = BrightnessPredictor()
  path = tmp_path / 'a.npy'
  np.save(path, _frames(video))
  got = predictor(path)
  assert got.title == str(path)
  expected = predictor(video).probabilities
  np.testing.assert_array_equal(got.probabilities, expected)
  np.save(path, np.array([{'no': 'frames'}]), allow_pickle=True)
  with pytest.raises(
    InputError, match=r'a\.npy cannot be read: .*Python objects'
  ):
    predictor(path)
  path.write_bytes(b'\x93NUMPY\x01')
  with pytest.raises(InputError, match=r'a\.npy cannot be read'):
    predictor(path)
  path.write_bytes(b'')
  with pytest.raises(InputError, match=r'a\.npy cannot be read'):
    predictor(path)
  for header in (b"{'descr': '|u1', (", b"{'shape': (9" + b'9' * 40 + b',)}'):
    size = len(header).to_bytes(2, 'little')
    path.write_bytes(b'\x93NUMPY\x01\x00' + size + header)
    with pytest.raises(InputError, match=r'a\.npy cannot be read'):
      predictor(path)
  np.savez(tmp_path / 'b.npz', _frames(video))
  shutil.move(tmp_path / 'b.npz', path)
  with pytest.raises(InputError, match='is an archive of arrays'):
    predictor(path)


def test_files_that_are_no_video(tmp_path):
  (tmp_path / 'x.mp4').write_text('no video')
  for name, cause in (
    ('x.mp4', 'Invalid data'),
    ('y.mp4', 'No such file'),
    ('y.npy', 'No such file'),
    ('', 'directory'),
  ):
    with pytest.raises(InputError, match=f'cannot be read: .*{cause}'):
      BrightnessPredictor()(tmp_path / name)


def test_how_videos_are_named(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'a/b').mkdir(parents=True)
  for folder in ('empty/folder.mp4', 'a/.hidden'):
    (tmp_path / folder).mkdir(parents=True)
  for name in ('a/2.MP4', 'a/b/1.avi', 'a/.h.mp4', 'a/n.txt', 'c[1].mp4'):
    (tmp_path / name).touch()
  (tmp_path / 'a/.hidden/3.mp4').touch()
  found, missing = find_videos(
    ['a', 'c[1].mp4', 'a/*', '*/**/*.avi', 'no.mp4', 'no*', 'empty', 'd[1].*']
  )
  # A folder's files by suffix; all that a pattern matches; nothing twice.
  assert found == ['a/2.MP4', 'a/b/1.avi', 'c[1].mp4', 'a/n.txt', 'no.mp4']
  assert [name for name, _ in missing] == ['no*', 'empty', 'd[1].*']
  assert missing[0][1] == 'no file matches this pattern'
  assert 'no video in this folder' in missing[1][1]
  assert missing[2][1].endswith('a bracket of a name is written [[]')


def test_names_that_a_terminal_can_take():
  assert printable('é[b] $x\x1b[2J\n\udcff') == 'é[b] $x\\x1b[2J\\n\\udcff'


# Folders that hold no model.


@pytest.fixture
def copied(run, tmp_path):
  return shutil.copytree(run[0], tmp_path / 'copied')


def _fails(workdir, match, **options):
  with pytest.raises(UserError, match=match):
    Predictor(workdir, **options)


def test_folders_without_a_model(copied, tmp_path):
  _fails(tmp_path / 'no', 'There is no folder .*/no')
  _fails(copied, "must be 'best' or 'last'", checkpoint='first')
  shutil.rmtree(copied / 'checkpoints/7')
  _fails(copied, 'no finished checkpoint')
  shutil.rmtree(copied / 'checkpoints')
  _fails(copied, 'neither a checkpoint nor an exported model')


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('config.json', None, r'config\.json cannot be read: No such file'),
    ('config.json', b'{"seed": 0', r'config\.json is damaged: Expecting'),
    ('config.json', b'\xff\xfe', r'config\.json is damaged'),
    ('config.json', b'[]', "no configuration of a run: .*'data'"),
    (
      'config.json',
      b'{"data": {"a.b": 1}, "eval": {}, "model": {}}',
      r'config\.json is damaged: .*dots in field names',
    ),
    ('config.json', b'{"data": {}, "eval": 3}', "it has no section 'eval'"),
    (
      'config.json',
      b'{"data": {}, "eval": {}, "model": {}}',
      r'data\.num_frames \(=None\) of .*config\.json must be a whole number',
    ),
    ('labels.txt', None, r'labels\.txt cannot be read: No such file'),
    ('labels.txt', b'h\xfcg\n', r'labels\.txt cannot be read'),
    ('labels.txt', b'', 'names no class'),
    ('labels.txt', b'dark\ndark\n', "names the class 'dark' twice"),
    ('labels.txt', b'dark\n\n', "names the class ''"),
    ('labels.txt', b'a\nb\nc\n', 'another model or number of classes'),
  ],
)
def test_damaged_runs(copied, name, content, message):
  (copied / name).unlink()
  if content is not None:
    (copied / name).write_bytes(content)
  _fails(copied, message)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('data.num_frames', '4', r"data\.num_frames \(='4'\) of .*\.json must"),
    ('eval.num_crops', True, r'eval\.num_crops \(=True\)'),
    ('data.short_videos', 'loop', r"short_videos \(='loop'\) .* one of \('rep"),
    ('data.input_size', None, r'config\.json makes no network: .*input_size'),
    ('data.input_size', '32', r'config\.json makes no network'),
    ('model.name', None, "Unknown model (='')"),
    ('model.name', 3, r'config\.json makes no network'),
    ('model.dropout', 'x', r'config\.json makes no network'),
    ('model.local_ratio', 'x', r'config\.json makes no network'),
  ],
)
def test_a_configuration_with_a_wrong_value(copied, key, value, message):
  path = copied / 'config.json'
  config = json.loads(path.read_text())
  section, name = key.split('.')
  config[section][name] = value
  if value is None and section == 'data':
    del config[section][name]
  path.write_text(json.dumps(config))
  with pytest.raises(UserError) as caught:
    Predictor(copied)
  assert re.search(message, str(caught.value)) or message in str(caught.value)


def test_a_configuration_of_earlier_days(copied):
  """Keys that prediction has no use for may be missing."""
  path = copied / 'config.json'
  config = json.loads(path.read_text())
  for section in ('train', 'optim', 'mesh'):
    del config[section]
  for key in ('read_attempts', 'prefetch', 'dir', 'short_videos'):
    del config['data'][key]
  del config['model']['temporal_kernels']
  path.write_text(json.dumps(config))
  predictor = Predictor(copied, checkpoint='last')
  assert predictor.config.data.short_videos == 'repeat'
