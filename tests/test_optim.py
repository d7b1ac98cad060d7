"""Schedules by their formulas, and one step of SGD by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, mtnet_m, srtg
from mtnet_jax import optim
from mtnet_jax.errors import UserError


def _schedule(config, num_steps=20_000, steps_per_epoch=10.0):
  return optim.learning_rate(
    config.optim,
    batch_size=config.train.batch_size,
    steps_per_epoch=steps_per_epoch,
    num_steps=num_steps,
  )


def test_mtnet_warms_up_to_a_tenth_and_falls_along_half_a_cosine():
  schedule = _schedule(mtnet_m.get_config())
  # 1.6 for 1024 clips is 0.1 for 64; warm-up over 8,000 steps.
  for step, rate in [(0, 0), (2_000, 0.025), (8_000, 0.1), (20_000, 0)]:
    np.testing.assert_allclose(schedule(step), rate, atol=1e-7)
  third = 8_000 + 4_000
  np.testing.assert_allclose(
    schedule(third), 0.1 * (1 + np.cos(np.pi / 3)) / 2, rtol=1e-5
  )


def test_srtg_divides_by_ten_at_its_epochs():
  config = srtg.get_config()
  config.train.batch_size = 64  # twice the reference: twice the rate
  schedule = _schedule(config, num_steps=1_500)
  for step, rate in [
    (0, 0.2), (399, 0.2), (401, 0.02), (699, 0.02), (701, 2e-3), (1_201, 2e-4)
  ]:  # fmt: skip
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-5)


def test_step_schedule_counts_milestones_from_the_start_of_warm_up():
  config = srtg.get_config()
  config.optim.warmup_steps = 100
  schedule = _schedule(config, num_steps=1_500)
  np.testing.assert_allclose(schedule(50), 0.05, rtol=1e-5)
  np.testing.assert_allclose(schedule(399), 0.1, rtol=1e-5)
  np.testing.assert_allclose(schedule(401), 0.01, rtol=1e-5)


def test_sgd_decays_kernels_alone_and_adds_momentum():
  config = base.get_config()
  config.optim.weight_decay = 0.5
  config.optim.momentum = 0.9
  tx = optim.sgd(config.optim, lambda step: 0.1)
  params = {
    'conv': {'kernel': jnp.array(2.0), 'bias': jnp.array(2.0)},
    'cell': {'kernel_x': jnp.array(2.0)},
    'norm': {'scale': jnp.array(2.0)},
  }
  gradients = {
    'conv': {'kernel': jnp.array(1.0), 'bias': jnp.array(1.0)},
    'cell': {'kernel_x': jnp.array(1.0)},
    'norm': {'scale': jnp.array(1.0)},
  }
  state = tx.init(params)
  first, state = tx.update(gradients, state, params)
  second, _ = tx.update(gradients, state, params)
  # Kernels: 1 + 0.5 * 2 = 2 a step; then 2 + 0.9 * 2. The others: 1; 1.9.
  for module, leaf, size in [
    ('conv', 'kernel', 2.0), ('cell', 'kernel_x', 2.0),
    ('conv', 'bias', 1.0), ('norm', 'scale', 1.0),
  ]:  # fmt: skip
    np.testing.assert_allclose(first[module][leaf], -0.1 * size, rtol=1e-6)
    np.testing.assert_allclose(second[module][leaf], -0.19 * size, rtol=1e-6)


def test_unknown_schedule_and_endless_warm_up():
  config = base.get_config()
  config.optim.schedule = 'cosin'
  with pytest.raises(UserError, match=r"'cosin'.*must be one of cosine, step"):
    _schedule(config)
  config.optim.schedule = 'cosine'
  config.optim.warmup_steps = 10
  with pytest.raises(UserError, match=r'\(=10\) must be less.*\(=10\)'):
    _schedule(config, num_steps=10)
