"""When BN's statistics are measured, and by whom their clips are loaded."""

import types

import jax
import pytest

from mtnet_jax.data import loading, pipeline
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.training import validation
from tests.tiny_runs import tiny_config


@pytest.fixture
def loaded(monkeypatch):
  """How each set of batches was asked for; nothing is loaded or measured."""
  asked = []

  def iterate(batches, **options):
    asked.append((len(batches), options))
    return iter(())

  def make_precise_norm(*unused):
    return lambda state, clips: types.SimpleNamespace(
      evaluated={}, clips=list(clips)
    )

  def score_videos(step, variables, batches, **unused):
    list(batches)
    return types.SimpleNamespace(broken={}, accuracy=lambda k: 0.5)

  monkeypatch.setattr(loading, 'iterate', iterate)
  monkeypatch.setattr(validation, 'make_precise_norm', make_precise_norm)
  monkeypatch.setattr(validation.scoring, 'score_videos', score_videos)
  return asked


def _validate(videos, last, **changes):
  config = tiny_config(videos, train__precise_norm_steps=3, **changes)
  validate = validation.make_validation(
    config,
    None,
    pipeline.build(config, 'train'),
    mesh_lib.make_mesh(devices=jax.devices()[:1]),
    None,
  )
  state = types.SimpleNamespace(evaluated={})
  return validate(state, iter, last)


def test_statistics_are_measured_before_a_score(blinking_videos, loaded):
  _, scores = _validate(blinking_videos, last=False)
  assert scores == {'top1': 0.5, 'top5': 0.5}
  assert loaded[0][0] == 3
  assert len(loaded) == 2


@pytest.mark.parametrize('last', [False, True])
def test_without_a_score_only_of_the_last_state(blinking_videos, loaded, last):
  _, scores = _validate(blinking_videos, last=last, train__validation_split='')
  assert scores is None and len(loaded) == int(last)


@pytest.mark.parametrize(('few', 'workers'), [(13, 0), (12, 4)])
def test_workers_load_many_clips_ahead(
  blinking_videos, loaded, few, workers, monkeypatch
):
  """Three batches of four clips."""
  monkeypatch.setattr(validation, '_FEW_CLIPS', few)
  _validate(blinking_videos, True, data__num_workers=4, data__prefetch=5)
  assert loaded[0] == (3, {'num_workers': workers, 'prefetch': 5})
