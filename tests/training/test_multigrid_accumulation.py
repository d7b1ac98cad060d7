"""Accumulation beside multigrid: shapes stay, the rate follows the clips."""

import jax
import numpy as np

from mtnet_jax.data import pipeline
from mtnet_jax.training import setup
from tests.tiny_runs import tiny_config


def _schedule(videos, **changes):
  config = tiny_config(
    videos,
    train__batch_size=2,
    train__num_steps=12,
    optim__warmup_steps=0,
    optim__learning_rate=0.1,
    optim__reference_batch=2,
    **changes,
  )
  dataset = pipeline.build(config, 'train')
  return dataset, setup.make_schedule(config, dataset)


def test_the_rate_follows_the_clips_of_an_update(blinking_videos):
  long = {'train__long_cycle': True}
  plain, each = _schedule(blinking_videos, **long)
  dataset, schedule = _schedule(blinking_videos, train__accumulate=3, **long)
  shapes = [plain.multigrid.shape(step) for step in range(12)]
  assert [dataset.multigrid.shape(step) for step in range(12)] == shapes
  # 16 videos: a step of 16, 8, 4 and 2 clips, again and again.
  assert [shape[0] for shape in shapes] == [16, 8, 4, 2] * 3
  rates = [float(each(step)) for step in range(12)]
  np.testing.assert_allclose(rates, [0.8, 0.4, 0.2, 0.1] * 3, rtol=1e-6)
  clips = np.reshape([shape[0] for shape in shapes], (4, 3)).sum(axis=1)
  found = [float(jax.jit(schedule)(step)) for step in range(0, 12, 3)]
  np.testing.assert_allclose(found, 0.1 * clips / 2, rtol=1e-6)
