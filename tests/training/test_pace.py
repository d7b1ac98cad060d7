"""How long a training will take, from what was measured of it."""

import pytest

from configs import finetune
from mtnet_jax.training import pace


@pytest.fixture
def config():
  config = finetune.get_config()
  with config.unlocked():
    config.data.num_workers = 1
    config.data.input_size, config.eval.input_size = 100, 200
    config.train.batch_size = 4
  return config


def test_loading_takes_the_time_of_steps_on_a_cpu(config):
  found = pace.combine(config, 30, took=1.0, loading=0.5, platform='cpu')
  # A view has four times the pixels: 4 · (0.4 · 1 + 0.5) / 4.
  assert (found.compile, found.step) == (30, 1.5)
  assert found.clip == pytest.approx(0.9)
  assert found.of(steps=10, judged=20) == pytest.approx(30 + 15 + 18)


@pytest.mark.parametrize(('loading', 'step'), [(0.5, 1.0), (3.0, 3.0)])
def test_loading_runs_beside_another_device(config, loading, step):
  found = pace.combine(config, 30, took=1.0, loading=loading, platform='gpu')
  assert found.step == step
