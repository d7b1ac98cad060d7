"""Pooled features are what a network's head starts from."""

import jax
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.prediction import Predictor
from mtnet_jax.prediction.user_videos import InputError
from tests.prediction_runs import BrightnessPredictor, write_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  write_run(workdir, '')
  return Predictor(workdir)


def _clips(count):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, 4, 32, 32, 3), np.uint8)


def test_the_head_makes_probabilities_of_features(predictor):
  clips = _clips(5)  # four go through the network at once
  features = predictor.features(clips)
  assert features.shape == (5, 96) and features.dtype == np.float32
  assert np.ptp(features, axis=0).max() > 1e-3  # clips do differ
  params = jax.device_get(predictor.variables['params'])
  hidden = np.maximum(features @ params['linear']['kernel'], 0)
  logits = hidden @ params['classifier']['kernel']
  scores = np.exp(logits + params['classifier']['bias'])
  np.testing.assert_allclose(
    predictor.probabilities(clips),
    scores / scores.sum(axis=1, keepdims=True),
    atol=1e-5,
  )


def test_a_clip_has_its_features_whatever_is_beside_it(predictor):
  clips = _clips(5)
  alone = predictor.features(clips[2:3])
  np.testing.assert_allclose(alone, predictor.features(clips)[2:3], rtol=1e-4)
  assert predictor.features(clips[:0]).shape == (0, 96)


@pytest.mark.parametrize(
  ('clips', 'given'),
  [
    (np.zeros((1, 4, 32, 32, 3), np.float32), r'float32 \(1, 4, 32, 32, 3\)'),
    (np.zeros((4, 32, 32, 3), np.uint8), r'uint8 \(4, 32, 32, 3\)'),
    (np.zeros((1, 3, 4, 32, 32), np.uint8), r'uint8 \(1, 3, 4, 32, 32\)'),
  ],
)
def test_what_are_no_clips(predictor, clips, given):
  for function in (predictor.features, predictor.probabilities):
    with pytest.raises(UserError, match=f'The clips are {given}; allowed is'):
      function.__wrapped__(predictor, clips)


def test_features_that_overflow(predictor, monkeypatch):
  def pool(variables, clips):
    return np.full((len(clips), 96), np.inf)

  monkeypatch.setattr(predictor, '_pool', pool)
  with pytest.raises(InputError, match='compute in float32'):
    predictor.features(_clips(1))


def test_an_exported_model_has_none():
  with pytest.raises(UserError, match=r'has no features\. Take the run .*=hub'):
    BrightnessPredictor().features(_clips(1))
