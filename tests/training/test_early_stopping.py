"""When a run is over, and that it stays so."""

import json

import pytest

from configs import base
from mtnet_jax.errors import UserError
from mtnet_jax.runs import metric_writer
from mtnet_jax.training import early_stopping, loop, validation
from mtnet_jax.training.early_stopping import Patience
from tests.tiny_runs import tiny_config


def _steps_until_over(tmp_path, validations, scores):
  patience = Patience(validations, tmp_path, 0)
  for count, score in enumerate(scores, 1):
    patience.add(score)
    if patience.is_over:
      return count
  return None


@pytest.mark.parametrize(
  ('validations', 'scores', 'count'),
  [
    (2, [0.1, 0.3, 0.2, 0.3, 0.4], 4),  # as good is not better
    (3, [0.1, 0.3, 0.2, 0.3, 0.4, 0.1, 0.2], None),
    (1, [0.5, 0.5], 2),
    (1, [0.1, 0.2, 0.3], None),
    (0, [0.5, 0.4, 0.3, 0.2], None),
  ],
)
def test_when_a_run_is_over(tmp_path, validations, scores, count):
  assert _steps_until_over(tmp_path, validations, scores) == count


def test_a_run_that_goes_on_knows_its_validations(tmp_path):
  records = [
    {'step': 2, 'val/top1': 0.5},
    {'step': 3, 'train/loss': 1.0},
    {'step': 4, 'val/top1': 0.25},
    {'step': 6, 'val/top1': 0.25},
  ]
  lines = ''.join(json.dumps(record) + '\n' for record in records)
  (tmp_path / 'metrics.jsonl').write_text(lines)
  assert Patience(2, tmp_path, 6).is_over
  # What lies beyond the checkpoint is done again.
  patience = Patience(2, tmp_path, 5)
  assert not patience.is_over
  patience.add(0.25)
  assert patience.is_over


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'patience': -1}, r'train\.patience \(=-1\) must be at least 0'),
    (
      {'patience': 2, 'validation_split': ''},
      r'\(=2\) needs validations: name a --config\.train\.validation_split',
    ),
    ({'patience': 2, 'eval_every': 0}, r'set --config\.train\.eval_every'),
  ],
)
def test_what_cannot_be_waited_for(changes, message):
  config = base.get_config()
  config.train.update(changes)
  with pytest.raises(UserError, match=message):
    early_stopping.check(config.train)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_a_run_ends_early_and_stays_ended(
  blinking_videos, tmp_path, monkeypatch
):
  scores = iter([0.5, 0.75, 0.25, 0.5, 0.875, 0.5])

  def make_scoring(*unused):
    return lambda *unused: {'top1': next(scores), 'top5': 1.0}

  monkeypatch.setattr(validation, '_make_scoring', make_scoring)
  config = tiny_config(
    blinking_videos,
    train__patience=2,
    train__eval_every=2,
    train__log_every=2,
    train__checkpoint_every=100,
  )

  def train():
    loop.train(config, tmp_path)
    steps = {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()}
    validated = [
      record['step']
      for record in metric_writer.read(tmp_path / 'metrics.jsonl')
      if 'val/top1' in record
    ]
    return steps, validated

  # The last two and the best.
  assert train() == ({4, 6, 8}, [2, 4, 6, 8])
  assert train() == ({4, 6, 8}, [2, 4, 6, 8])
  config.train.patience = 3
  assert train() == ({10, 12}, [2, 4, 6, 8, 10, 12])
