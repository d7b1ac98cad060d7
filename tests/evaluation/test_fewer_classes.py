"""Data that lack classes of the run, or of its configuration's pairs."""

import shutil

import numpy as np
import pytest

from mtnet_jax.data import preparation, sources
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import controls, scoring
from mtnet_jax.runs import model as model_lib
from tests.tiny_runs import tiny_config

_RUN = ('gray', 'dark', 'loud', 'bright')


@pytest.fixture
def by_brightness(monkeypatch, tmp_path):
  """A run of four classes, whose network tells bright from dark."""

  def make(model, mesh):
    del mesh
    assert model.num_classes == len(_RUN)

    def eval_step(variables, clips):
      bright = np.asarray(clips).mean(axis=(1, 2, 3, 4)) > 120
      return np.eye(len(_RUN))[np.where(bright, 3, 1)], {}

    return eval_step

  monkeypatch.setattr(scoring, 'make_eval_step', make)
  monkeypatch.setattr(model_lib, 'restore_variables', lambda *_: ({}, 0))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/labels.txt').write_text('\n'.join(_RUN) + '\n')
  return tmp_path / 'run'


@pytest.mark.parametrize('form', ['folder', 'records'])
@pytest.mark.parametrize('classes', [('bright', 'dark'), ('dark',)])
def test_the_labels_are_the_runs(
  blinking_videos, by_brightness, tmp_path, classes, form, caplog
):
  for name in classes:
    shutil.copytree(blinking_videos / 'test' / name, tmp_path / 'a/test' / name)
  if form == 'records':
    preparation.write(sources.list_videos(tmp_path / 'a'), tmp_path / 'b')
  config = tiny_config(tmp_path / ('b' if form == 'records' else 'a'))
  predictions, names = scoring.evaluate(config, by_brightness)
  assert names == _RUN
  assert predictions.probabilities.shape == (4 * len(classes), 4)
  wanted = {'bright': 3, 'dark': 1}
  assert predictions.labels.tolist() == [
    wanted[name] for name in classes for _ in range(4)
  ]
  assert predictions.accuracy(1) == 1
  assert f'have {len(classes)} of the 4 classes' in caplog.text
  assert 'missing are' in caplog.text


def test_a_class_that_the_run_does_not_have(
  blinking_videos, by_brightness, tmp_path
):
  shutil.copytree(blinking_videos / 'test', tmp_path / 'a/test')
  (tmp_path / 'a/test/dark').rename(tmp_path / 'a/test/darker')
  with pytest.raises(UserError, match=r'trained on 4 .* has 2: new are darker'):
    scoring.evaluate(tiny_config(tmp_path / 'a'), by_brightness)


def test_pairs_of_other_data_are_left_out(blinking_videos, caplog):
  config = tiny_config(blinking_videos)
  assert config.eval.reversed_pairs  # the demo's
  controls.check(config)
  assert caplog.text.count('neither class here') == 3
  config.eval.reversed_pairs = (('sit', 'stand'), ('dark', 'bright'))
  assert controls._find_pairs(
    config.eval.reversed_pairs, ('bright', 'dark')
  ) == [(1, 0)]
  # One class of a pair is a slip, unless the run has the other.
  config.eval.reversed_pairs = (('dark', 'gray'),)
  with pytest.raises(UserError, match=r'reversed_pairs has .*bright, dark'):
    controls.check(config)
  controls.check(config, _RUN)
