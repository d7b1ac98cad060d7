"""Controls by hand, and on videos that give themselves away by their size."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from mtnet_jax.data.records import Example
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import controls, scoring
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.runs import model as model_lib
from mtnet_jax.training import loop
from tests.tiny_runs import tiny_config


def _predictions(labels, probabilities):
  labels = np.array(labels)
  return Predictions(
    labels.astype(str), labels, np.array(probabilities, np.float32), {}
  )


def test_pair_accuracy_by_hand():
  predictions = _predictions(
    [0, 1, 0, 2, 3],
    [
      [0.2, 0.1, 0.3, 0.4],  # right among the two, though class 3 leads
      [0.5, 0.4, 0.1, 0.0],  # wrong
      [0.25, 0.25, 0.25, 0.25],  # half
      [0.0, 0.0, 0.0, 1.0],  # of no pair
      [0.9, 0.0, 0.0, 0.1],  # of no pair
    ],
  )
  assert controls.pair_accuracy(predictions, [(0, 1)]) == 0.5
  assert controls.pair_accuracy(predictions, [(1, 0)]) == 0.5
  assert controls.pair_accuracy(predictions, [(0, 1), (3, 2)]) == 0.5
  assert controls.pair_accuracy(predictions, [(3, 2)]) == 0.5
  assert controls.pair_accuracy(predictions, [(0, 3)]) == pytest.approx(1 / 6)


def test_cues_that_tell_everything_and_nothing():
  rng = np.random.default_rng(0)
  labels, test_labels = np.arange(60) % 3, np.arange(90) % 3
  noise, test_noise = rng.normal(size=(60, 2)), rng.normal(size=(90, 2))
  telling = np.stack([10.0 * labels, noise[:, 0]], 1)
  test_telling = np.stack([10.0 * test_labels, test_noise[:, 0]], 1)
  everything = controls.classify_cues(
    telling, labels, test_telling, test_labels
  )
  assert everything > 0.95
  nothing = controls.classify_cues(noise, labels, test_noise, test_labels)
  assert abs(nothing - 1 / 3) < 0.15  # three standard deviations


def test_constant_and_far_cues():
  cues = np.array([[1.0, 5.0], [1.0, 6.0], [1.0, 20.0], [1.0, 21.0]])
  labels = np.array([0, 0, 1, 1])
  far = np.array([[1.0, 1e6], [1.0, -1e6]])
  assert controls.classify_cues(cues, labels, far, np.array([1, 0])) == 1


def _by_loops(cues, labels, tested, widths):
  """Leave-one-out in plain loops: (the width, the classes at `tested`)."""
  mean, spread = cues.mean(0), cues.std(0)
  cues, tested = (cues - mean) / spread, (tested - mean) / spread

  def best(point, width, without=None):
    density = dict.fromkeys(sorted(set(labels.tolist())), 0.0)
    for i, cue in enumerate(cues):
      if i != without:
        squared = sum((cue - point) ** 2)
        density[int(labels[i])] += np.exp(-squared / (2 * width**2))
    return max(density, key=density.get)

  scores = {
    width: sum(best(c, width, i) == labels[i] for i, c in enumerate(cues))
    for width in widths
  }
  width = max(scores, key=scores.get)
  return width, [best(point, width) for point in tested]


def test_the_width_is_chosen_by_leaving_one_out():
  # Two classes that overlap: what is narrow knows its own videos by heart.
  rng = np.random.default_rng(1)
  labels = np.arange(80) % 2
  cues = rng.normal(size=(80, 2)) + labels[:, None]
  tested = rng.normal(size=(50, 2)) + 0.5
  width, expected = _by_loops(cues, labels, tested, controls._WIDTHS)
  assert width > 0.1
  for truth in (0, 1):
    share = controls.classify_cues(cues, labels, tested, np.full(50, truth))
    assert share == np.mean([e == truth for e in expected])
  _, others = _by_loops(cues, labels, tested, [0.05])
  assert others != expected  # the choice matters here


@pytest.fixture(scope='module')
def directions(tmp_path_factory, write_video):
  """Brightening and dimming videos; all that dim are larger."""
  root = tmp_path_factory.mktemp('directions')
  rng = np.random.default_rng(0)
  for split, count in (('train', 6), ('val', 2), ('test', 4)):
    for i in range(count):
      levels = np.linspace(40, 200, 12)[:, None, None, None]
      for label, size in (('brighten', 48), ('dim', 64)):
        noise = rng.integers(-20, 20, (12, size, size, 3))
        frames = (levels + noise).astype(np.uint8)
        levels = levels[::-1]
        write_video(root / split / label / f'{i}.mp4', frames)
  return root


def test_measured_on_a_run(directions, tmp_path):
  config = tiny_config(directions, train__num_steps=3)
  config.eval.reversed_pairs = (('brighten', 'dim'),)
  loop.train(config, tmp_path)
  predictions, names = scoring.evaluate(config, tmp_path)
  figures = controls.measure(config, tmp_path, 'best', predictions, names)
  assert list(figures) == [
    'top1', 'chance', 'trivial_cues', 'shuffled_top1', 'pairs',
    'shuffled_pairs',
  ]  # fmt: skip
  assert figures['trivial_cues'] == 1  # the size gives it away
  assert figures['chance'] == 0.5
  shuffled, _ = scoring.evaluate(config, tmp_path, shuffle_frames=True)
  assert np.abs(shuffled.probabilities - predictions.probabilities).max() > 1e-4
  assert figures['shuffled_top1'] == shuffled.accuracy()
  # With two classes that are a pair the two accuracies are one.
  assert figures['pairs'] == figures['top1'] == predictions.accuracy()
  assert figures['shuffled_pairs'] == figures['shuffled_top1']


@dataclasses.dataclass
class _Source:
  """Examples, of which those that are errors cannot be read."""

  examples: list

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, index):
    if isinstance(self.examples[index], VideoError):
      raise self.examples[index]
    return self.examples[index]


def _read_cues(monkeypatch, *examples):
  source = _Source(list(examples))
  monkeypatch.setattr(controls.sources, 'open_source', lambda *_: source)
  return controls._read_cues('dir', 'train')


def test_cues_by_hand(blinking_videos, monkeypatch, caplog):
  video = str(blinking_videos / 'train/dark/0.mp4')
  cues, labels = _read_cues(
    monkeypatch,
    Example('whole', 1, video),
    VideoError('record 1 of x', 'its checksum is wrong'),
    Example('broken', 1, b'no video'),
    Example('part', 0, video, start=0.2, end=0.6),
  )
  assert labels.tolist() == [1, 0]
  # Frames, frames a second, seconds, width, height, and their ratio.
  expected = [[12, 10, 1.2, 48, 32, 1.5], [4, 10, 0.4, 48, 32, 1.5]]
  np.testing.assert_allclose(cues, np.log(expected))
  assert '2 videos of split' in caplog.text
  assert 'first is record 1 of x: its checksum is wrong' in caplog.text
  with pytest.raises(UserError, match='No video of split'):
    _read_cues(monkeypatch, Example('broken', 1, b'no video'))


def test_frames_without_a_rate_give_no_cue_by_it(monkeypatch):
  image = cv2.imencode('.png', np.zeros((20, 30, 3), np.uint8))[1].tobytes()
  cues, _ = _read_cues(monkeypatch, Example('a', 0, (image,) * 5))
  np.testing.assert_allclose(cues, [[*np.log([5, 1, 1, 30, 20, 1.5])]])


@pytest.mark.parametrize(
  'pairs',
  [
    (('brighten', 'darken'),),
    (('brighten', 'brighten'),),
    (('brighten', 'dim'), ('dim', 'brighten')),
    ('brighten', 'dim'),
    (('brighten',),),
    (3,),
  ],
)
def test_pairs_that_are_none(directions, pairs):
  config = tiny_config(directions)
  config.eval.reversed_pairs = pairs
  with pytest.raises(UserError, match=r'reversed_pairs has .*brighten, dim'):
    controls.check(config)


def test_controls_need_training_videos(blinking_videos, tmp_path):
  shutil.copytree(blinking_videos / 'test', tmp_path / 'test')
  with pytest.raises(UserError, match="no videos of split 'train'"):
    controls.check(tiny_config(tmp_path))


def test_order_decides_and_shuffling_hides_it(directions, monkeypatch):
  """A network that compares the first with the last frame."""

  def by_hand(model, mesh):
    del model, mesh

    def eval_step(variables, clips):
      means = np.asarray(clips).astype(float).mean(axis=(2, 3, 4))  # n t
      brighter = (means[:, -1] > means[:, 0]).astype(float)
      return np.stack([brighter, 1 - brighter], axis=1), {}

    return eval_step

  monkeypatch.setattr(scoring, 'make_eval_step', by_hand)
  monkeypatch.setattr(model_lib, 'restore_variables', lambda *_: ({}, 0))
  # A view a video: the mean over many would tell which way most of them go.
  config = tiny_config(directions, eval__num_clips=1, eval__num_crops=1)
  config.eval.split = 'train'
  pairs = [(0, 1)]
  ordered, _ = scoring.evaluate(config, directions)
  assert controls.pair_accuracy(ordered, pairs) == 1
  seen = []
  for seed in range(20):
    config.seed = seed
    shuffled, _ = scoring.evaluate(config, directions, shuffle_frames=True)
    seen.append(controls.pair_accuracy(shuffled, pairs))
  assert abs(np.mean(seen) - 0.5) < 0.1  # three standard deviations of 240


def test_shuffled_frames_are_the_same_frames():
  """Every view has its frames in an order of its own, and no other frames."""
  numbers = np.arange(2 * 3 * 8).reshape(2, 3, 8, 1, 1, 1).astype(np.uint8)
  batches = [{'clips': numbers, 'labels': np.array([0, 1])}] * 2
  first, second = scoring._shuffle_frames(batches, seed=0)
  for batch in (first, second):
    assert (np.sort(batch['clips'], axis=2) == numbers).all()
    assert (batch['labels'] == [0, 1]).all()
  orders = {
    tuple((view.ravel() - view.min()).tolist())
    for batch in (first, second)
    for view in batch['clips'].reshape(6, 8)
  }
  assert len(orders) == 12
  again, _ = scoring._shuffle_frames(batches, seed=0)
  assert (again['clips'] == first['clips']).all()
