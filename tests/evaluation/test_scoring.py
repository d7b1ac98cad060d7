"""Every video once, whatever the batch and the devices; files by their text."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation import scoring
from mtnet_jax.evaluation.predictions import (
  Predictions,
  per_class,
  write_predictions,
)
from mtnet_jax.runs import folder as run_folder

_CLASSES = 3


def _video(index, views=4):
  """Clips `(v, t, h, w, c)` whose brightness names the video and the view."""
  brightness = (17 * index + 5 * np.arange(views)) % 256
  return np.broadcast_to(
    brightness[:, None, None, None, None], (views, 2, 2, 2, 3)
  ).astype(np.uint8)


def _batches(videos, per_batch, broken=()):
  """Evaluation batches as the pipeline makes them, the last one padded."""
  batches = []
  for start in range(0, videos, per_batch):
    indices = range(start, start + per_batch)
    real = [i < videos for i in indices]
    good = [r and i not in broken for i, r in zip(indices, real, strict=True)]
    batches.append(
      {
        'clips': np.stack(
          [
            _video(i) if g else np.zeros_like(_video(0))
            for i, g in zip(indices, good, strict=True)
          ]
        ),
        'labels': np.array([i % _CLASSES for i in indices], np.int32),
        'mask': np.array(good),
        'ids': np.array([f'v{i}' if i < videos else '' for i in indices]),
        'broken': np.array(
          ['no frames' if i in broken else '' for i in indices]
        ),
      }
    )
  return batches


def _fake_step(variables, clips):
  """Class 0 gets the brightness, class 1 the rest, class 2 nothing.

  The early predictions are digits of the brightness.
  """
  brightness = np.asarray(clips).reshape(len(clips), -1).mean(axis=1)
  share = brightness / 255
  early = {
    'stage_1': np.int32(brightness) % 3,
    'stage_2': np.int32(brightness) // 10 % 3,
  }
  return np.stack([share, 1 - share, 0 * share], axis=1), early


def _expected(index):
  share = _video(index)[:, 0, 0, 0, 0].astype(np.float64).mean() / 255
  return [share, 1 - share, 0]


@pytest.mark.parametrize('per_batch', [1, 2, 7])
@pytest.mark.parametrize('clips_per_step', [1, 3, 8, 50])
def test_every_video_counts_once_by_the_mean_of_its_views(
  per_batch, clips_per_step
):
  predictions = scoring.score_videos(
    _fake_step,
    {},
    _batches(7, per_batch, broken=(2, 6)),
    clips_per_step=clips_per_step,
    mesh=mesh_lib.make_mesh(),
  )
  scored = [0, 1, 3, 4, 5]
  assert predictions.ids.tolist() == [f'v{i}' for i in scored]
  assert predictions.labels.tolist() == [i % _CLASSES for i in scored]
  assert predictions.broken == {'v2': 'no frames', 'v6': 'no frames'}
  np.testing.assert_allclose(
    predictions.probabilities, [_expected(i) for i in scored], atol=1e-6
  )
  # Brightnesses of the four views: 0 5 10 15, 17 22 27 32, 51 56 61 66,
  # 68 73 78 83, 85 90 95 100; where no class leads, the lowest one does.
  votes = {'stage_1': [0, 2, 0, 2, 1], 'stage_2': [0, 2, 0, 1, 0]}
  assert {k: v.tolist() for k, v in predictions.early.items()} == votes
  labels = [i % _CLASSES for i in scored]
  assert predictions.early_accuracy() == {
    stage: sum(v == k for v, k in zip(vote, labels, strict=True)) / 5
    for stage, vote in votes.items()
  }


def test_accuracy_is_over_the_scored_videos():
  predictions = Predictions(
    ids=np.array(['a', 'b', 'c']),
    labels=np.array([0, 1, 1]),
    probabilities=np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]),
    broken={'d': 'empty'},
  )
  assert predictions.accuracy(1) == pytest.approx(2 / 3)
  assert predictions.accuracy(2) == 1
  assert predictions.predicted.tolist() == [0, 0, 1]
  rows = per_class(predictions, ('hug', 'kick', 'push'))
  assert rows == [('hug', 1, 1.0, 1.0), ('kick', 2, 0.5, 1.0)]


def test_nothing_scored_is_an_error_that_says_why():
  with pytest.raises(UserError, match=r'could be scored\. v0: no frame'):
    scoring.score_videos(
      _fake_step,
      {},
      _batches(1, 1, broken=(0,)),
      clips_per_step=4,
      mesh=mesh_lib.make_mesh(),
    )


def test_outputs_that_are_not_finite_count_for_no_class():
  def step(variables, clips):
    scores, early = _fake_step(variables, clips)
    scores[clips.reshape(len(clips), -1).max(axis=1) > 80] = np.nan
    return scores, early

  # Of the videos 4, 5 and 6 a view is that bright.
  with pytest.raises(UserError, match='not finite for 3 of 7 videos, v4 for'):
    scoring.score_videos(
      step, {}, _batches(7, 2), clips_per_step=3, mesh=mesh_lib.make_mesh()
    )


def test_written_files(tmp_path):
  predictions = scoring.score_videos(
    _fake_step,
    {},
    _batches(5, 2, broken=(4,)),
    clips_per_step=4,
    mesh=mesh_lib.make_mesh(),
  )
  write_predictions(predictions, ('hug', 'kick', 'push'), tmp_path / 'out')
  with np.load(tmp_path / 'out/predictions.npz') as stored:  # allows no pickle
    assert sorted(stored) == [
      'early_stage_1', 'early_stage_2', 'ids', 'labels', 'probabilities'
    ]  # fmt: skip
    assert stored['early_stage_1'].tolist() == [0, 2, 1, 0]
    assert stored['probabilities'].shape == (4, 3)
    assert stored['ids'].tolist() == ['v0', 'v1', 'v2', 'v3']
  text = (tmp_path / 'out/per_class.csv').read_text()
  rows = list(csv.DictReader(text.splitlines()))
  assert [row['class'] for row in rows] == ['hug', 'kick', 'push']
  assert [row['videos'] for row in rows] == ['2', '1', '1']
  summary = json.loads((tmp_path / 'out/summary.json').read_text())
  assert summary['videos'] == 4 and summary['not_scored'] == {'v4': 'no frames'}
  assert summary['top1'] == predictions.accuracy(1)
  assert summary['early_top1'] == predictions.early_accuracy()


def test_other_classes_than_the_run_knows(tmp_path):
  run_folder.check_class_names(tmp_path, ('hug', 'kick'))  # a new run
  (tmp_path / 'labels.txt').write_text('hug\nkick\n')
  run_folder.check_class_names(tmp_path, ('hug', 'kick'))
  with pytest.raises(UserError, match=r'2 classes.*has 3: new are push'):
    run_folder.check_class_names(tmp_path, ('hug', 'kick', 'push'))
  with pytest.raises(UserError, match='another order'):
    run_folder.check_class_names(tmp_path, ('kick', 'hug'))


_SCORE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from flax import linen as nn
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.evaluation import scoring
from tests.evaluation import test_scoring as helpers

class Model(nn.Module):
  dtype: str = 'float32'
  input_mean: tuple = (0.45,) * 3
  input_std: tuple = (0.225,) * 3
  @nn.compact
  def __call__(self, x, *, train=False):
    x = x.mean(axis=(1, 2, 3))
    early = {'stage_1': jnp.int32(x[:, 0] > 0)}
    return nn.Dense(3, name='head')(x), {'early_predictions': early}

mesh = mesh_lib.make_mesh()
model = Model()
variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 2, 3)))
variables = jax.device_put(variables, mesh_lib.replicated(mesh))
predictions = scoring.score_videos(
  scoring.make_eval_step(model, mesh), variables,
  helpers._batches(7, 2, broken=(3,)), clips_per_step=6, mesh=mesh)
print(mesh.size, file=sys.stderr)
print(predictions.ids.tolist(), np.round(predictions.probabilities, 6).tolist(),
      predictions.early['stage_1'].tolist())
"""


def test_three_devices_say_what_one_says(root):
  def run(devices):
    flags = f'--xla_force_host_platform_device_count={devices}'
    done = subprocess.run(
      [sys.executable, '-c', _SCORE],
      cwd=root,
      env=os.environ | {'XLA_FLAGS': flags},
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stderr.split()[-1] == str(devices)
    return done.stdout

  assert run(3) == run(1)
