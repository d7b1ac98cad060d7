"""Saliency in boxes by hand; the boxes of a view; the command."""

import types

import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.data import transforms, views
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.explain import sanity
from mtnet_jax.explain.sanity import boxes_in_view, coverage, mass_in_boxes
from tests import command_line
from tests.arrays import random_variables


def test_pixels_in_a_box_by_hand():
  boxes = np.array([[[1, 0, 3, 2]], [[0.5, 1, 1.25, 1.5]]])
  np.testing.assert_array_equal(
    coverage(boxes, (2, 4)),
    [
      [[0, 1, 1, 0], [0, 1, 1, 0]],
      [[0, 0, 0, 0], [0.25, 0.125, 0, 0]],
    ],
  )


def test_boxes_that_overlap_count_once():
  boxes = np.array([[[0, 0, 2, 1], [1, 0, 3, 1]]])
  np.testing.assert_array_equal(coverage(boxes, (1, 4)), [[[1, 1, 1, 0]]])


def test_mass_by_hand():
  saliency = np.array([[[1, 2], [3, 4]]], np.float32)
  boxes = np.array([[[1, 0, 2, 2]]])
  assert mass_in_boxes(saliency, boxes) == (pytest.approx(0.6), 0.5)
  uniform = np.full((1, 2, 2), 0.3, np.float32)
  assert mass_in_boxes(uniform, boxes) == (pytest.approx(0.5), 0.5)
  assert mass_in_boxes(0 * uniform, boxes) == (0.5, 0.5)


@pytest.mark.parametrize('width, height', [(60, 40), (40, 50), (48, 48)])
@pytest.mark.parametrize('crop, size', [(40, 40), (64, 32), (48, 36)])
def test_boxes_follow_the_picture(width, height, crop, size):
  """A white rectangle, resized and cut as evaluation does, is found again."""
  x0, y0, x1, y1 = 18, 12, 34, 30
  frame = np.zeros((1, height, width, 3), np.uint8)
  frame[:, y0:y1, x0:x1] = 255
  scale = crop / min(width, height)
  resized = transforms.resize(
    frame, round(scale * height), round(scale * width)
  )
  seen = transforms.resize_square(
    transforms.crops_along_long_side(resized, 1)[0], size
  )[0, ..., 0]
  boxes = np.array([[[x0, y0, x1, y1]]])
  found = boxes_in_view(boxes, width, height, crop, size)
  inside = coverage(found, (size, size))[0]
  # A soft edge may be off by half a pixel, the center and the area not.
  for axis in (0, 1):
    at = np.arange(size) + 0.5
    centers = [
      a.sum(axis=1 - axis) @ at / a.sum() for a in (seen / 255, inside)
    ]
    assert abs(centers[0] - centers[1]) < 0.15
  assert abs(seen.sum() / 255 / inside.sum() - 1) < 0.05


def test_boxes_out_of_sight_are_empty():
  boxes = np.array([[[0, 5, 6, 20], [50, 0, 60, 40]]])
  # The middle of 60 columns are 10 to 50.
  found = boxes_in_view(boxes, 60, 40, 40, 40)
  np.testing.assert_array_equal(found, [[[0, 5, 0, 20], [40, 0, 40, 40]]])


def maps_and_boxes(count=12):
  """Videos with a box of a quarter of the picture, each at its own place."""
  rng = np.random.default_rng(0)
  boxes, inside = [], []
  for _ in range(count):
    x, y = rng.integers(0, 8, 2)
    boxes.append(np.array([[[x, y, x + 8, y + 8]]] * 2))
    inside.append(coverage(boxes[-1], (16, 16)))
  return boxes, inside


def test_scores_of_known_maps():
  boxes, inside = maps_and_boxes()
  score = sanity.score(inside, boxes, np.random.default_rng(0))
  assert score.mass == 1 and score.covered == 0.25
  assert score.ratio == 4 and score.ratio_interval == (4, 4)
  assert 1.3 < score.gain_interval[0] < score.gain < score.gain_interval[1]


def test_a_map_that_is_always_the_same_gains_nothing():
  boxes, inside = maps_and_boxes(40)
  middle = np.mean(inside, axis=0)
  score = sanity.score([middle] * 40, boxes, np.random.default_rng(0))
  assert score.ratio_interval[0] > 1.2
  assert score.gain_interval[0] < 1 < score.gain_interval[1]


def test_noise_scores_one():
  boxes, _ = maps_and_boxes(40)
  noise = list(np.random.default_rng(1).random((40, 2, 16, 16)))
  score = sanity.score(noise, boxes, np.random.default_rng(0))
  assert abs(score.ratio - 1) < 0.03 and abs(score.gain - 1) < 0.03


def test_a_data_set_without_boxes(tmp_path):
  with pytest.raises(UserError, match=r'boxes\.npz is missing'):
    sanity.read_samples(None, tmp_path, 'test', 5)
  np.savez(tmp_path / 'boxes.npz', **{'train/a/0.mp4': np.zeros((1, 1, 4))})
  predictor = types.SimpleNamespace(config=None)
  with pytest.raises(UserError, match="has 0 videos of split 'test'"):
    sanity.read_samples(predictor, tmp_path, 'test', 5)


class SmallPredictor:
  """Stands in for a trained run: four stages of few channels."""

  source = 'a run'

  def __init__(self, workdir, checkpoint='best', given=None):
    self.config = types.SimpleNamespace(
      data=types.SimpleNamespace(num_frames=4, frame_stride=2, dir=workdir),
      eval=types.SimpleNamespace(crop_size=16, input_size=16),
    )
    self.model = models.build('x3d_s', 3).clone(
      blocks=(1, 1, 1, 1),
      stem_features=4,
      stages=((8, 4),) * 4,
      head_features=(8, 16),
      class_regularization=True,
    )
    self.variables = random_variables(
      self.model, np.zeros((1, 4, 16, 16, 3), np.float32)
    )

  def open(self, path):
    return VideoReader(path)

  def read(self, reader, indices, num_crops):
    return views.read(
      reader, indices, num_crops=num_crops, crop_size=16, input_size=16
    )


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_the_command_prints_a_row_for_each_network_and_map(
  tmp_path, write_video, monkeypatch
):
  rng = np.random.default_rng(0)
  boxes = {}
  for i in range(3):
    name = f'test/a/{i}.mp4'
    frames = rng.integers(0, 256, (12, 32, 48, 3)).astype(np.uint8)
    write_video(tmp_path / name, frames)
    boxes[name] = np.tile([[[16, 4, 30, 28]]], (12, 1, 1)).astype(np.int16)
  np.savez(tmp_path / 'boxes.npz', **boxes)
  monkeypatch.setattr(sanity, 'Predictor', SmallPredictor)
  flags = f'--workdir={tmp_path}', '--videos=9', '--untrained=1'
  done = command_line.run(sanity.COMMAND, *flags)
  assert done.code == 0, done.stderr
  head, *rows = done.stdout.splitlines()
  assert head.split()[:3] == ['network', 'method,', 'layer']
  # One tube, four of Class Regularisation, six of Grad-CAM.
  assert len(rows) == 2 * (1 + 4 + 6)
  assert rows[0].startswith('trained      Saliency Tubes, last')
  assert rows[-1].startswith('untrained 0  Grad-CAM, last')
  # 14 by 24 of 32 by 32 pixels.
  assert all(f'{14 * 24 / 32**2:.3f}' in row for row in rows)
