"""Schedules by their formulas, and one step of SGD by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base, mtnet_m, srtg
from mtnet_jax.errors import UserError
from mtnet_jax.training import optim


def _schedule(config, num_steps=20_000, steps_per_epoch=10.0, factors=(1.0,)):
  return optim.learning_rate(
    config.optim,
    batch_size=config.train.batch_size,
    steps_per_epoch=steps_per_epoch,
    num_steps=num_steps,
    factors=factors,
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


# Two phases of two steps, on four and on one times the clips.
_FACTORS = (4.0, 4.0, 1.0, 1.0)


def test_factors_under_steps_with_warm_up():
  """A peak of 0.5, warm-up of 4 steps, a tenth from epoch 2 of 4 steps on."""
  config = srtg.get_config()
  config.optim.update(learning_rate=0.5, warmup_steps=4, milestones=(2,))
  schedule = _schedule(
    config, num_steps=16, steps_per_epoch=4.0, factors=_FACTORS
  )
  expected = [
    [4 * 0.0, 4 * 0.125, 1 * 0.25, 1 * 0.375],
    [4 * 0.5, 4 * 0.5, 1 * 0.5, 1 * 0.5],
    [4 * 0.05, 4 * 0.05, 1 * 0.05, 1 * 0.05],
    [4 * 0.05, 4 * 0.05, 1 * 0.05, 1 * 0.05],
  ]
  found = [float(schedule(step)) for step in range(16)]
  np.testing.assert_allclose(found, np.ravel(expected), rtol=1e-6)


def test_factors_under_half_a_cosine_with_warm_up():
  """A peak of 0.8 over two steps, then 8 steps of half a cosine to zero."""
  config = mtnet_m.get_config()
  config.optim.update(learning_rate=0.8, reference_batch=64, warmup_steps=2)
  schedule = _schedule(config, num_steps=10, factors=_FACTORS)
  root = np.sqrt(0.5)  # the cosine of a quarter and three quarters of pi
  expected = {
    0: 4 * 0.0,
    1: 4 * 0.4,
    2: 1 * 0.8,
    4: 4 * 0.8 * (1 + root) / 2,
    6: 1 * 0.4,
    8: 4 * 0.8 * (1 - root) / 2,
    10: 0.0,
  }
  found = {step: float(schedule(step)) for step in expected}
  assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_factors_go_on_from_any_step_of_a_compiled_program():
  config = srtg.get_config()
  schedule = jax.jit(_schedule(config, factors=(8.0, 2.0, 1.0)))
  found = [float(schedule(step)) for step in (0, 1, 2, 3, 301, 398)]
  np.testing.assert_allclose(found, [0.8, 0.2, 0.1, 0.8, 0.2, 0.1 * 1], 1e-6)


def _by_hand(value, gradients, rate, decay, share):
  """SGD with momentum 0.9, in float64."""
  trace = 0.0
  for gradient in gradients:
    trace = 0.9 * trace + gradient + decay * value
    value = value - share * rate * trace
  return value


@pytest.mark.parametrize(
  ('trained', 'share'),
  [
    ('all', 1.0),
    ('all', 0.1),
    ('classifier', 1.0),
    ('class_regularization', 1.0),
  ],
)
def test_what_is_trained_and_at_which_rate(trained, share):
  config = base.get_config()
  config.optim.update(weight_decay=0.02, backbone_rate=share, trained=trained)
  tx = optim.build(config.optim, lambda step: 0.3)
  rng = np.random.default_rng(0)

  def draw():
    return {
      'block': {'conv': {'kernel': rng.normal(size=(2, 3)).astype('f')}},
      'linear': {'kernel': rng.normal(size=(3, 3)).astype('f')},
      'norm': {'scale': rng.normal(size=3).astype('f')},
      'class_regularization_2': {'kernel': rng.normal(size=(3, 2)).astype('f')},
      'classifier': {
        'kernel': rng.normal(size=(3, 2)).astype('f'),
        'bias': rng.normal(size=2).astype('f'),
      },
    }

  start, gradients = draw(), [draw() for _ in range(3)]
  params = jax.tree.map(jnp.asarray, start)
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    names = [key.key for key in path]
    seen = [start, *gradients]
    for name in names:
      seen = [tree[name] for tree in seen]
    if trained != 'all' and not names[0].startswith(trained):
      np.testing.assert_array_equal(leaf, seen[0])  # to the last bit
      continue
    expected = _by_hand(
      np.float64(seen[0]),
      seen[1:],
      rate=0.3,
      decay=0.02 if names[-1] == 'kernel' else 0.0,
      share=1.0 if names[0] == 'classifier' else share,
    )
    np.testing.assert_allclose(leaf, expected, rtol=1e-5, err_msg=names)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'backbone_rate': -0.1}, r'backbone_rate \(=-0\.1\) must be above 0'),
    ({'backbone_rate': 0.0}, r"\(=0\.0\).*optim\.trained='classifier'"),
    ({'name': 'adam'}, r"optim\.name \(='adam'\) must be one of sgd, adamw"),
    ({'clip_norm': -1.0}, r'optim\.clip_norm \(=-1\.0\) must be at least 0'),
    ({'clip_norm': np.nan}, r'optim\.clip_norm \(=nan\)'),
    ({'momentum': 1.0}, r'optim\.momentum \(=1\.0\) must lie in \[0, 1\)'),
    ({'second_momentum': -0.1}, r'optim\.second_momentum \(=-0\.1\) must'),
    ({'weight_decay': -1e-4}, r'optim\.weight_decay \(=-0\.0001\) must be'),
    (
      {'trained': 'head'},
      r"\(='head'\) must be one of all, classifier, class_",
    ),
  ],
)
def test_an_optimizer_that_cannot_be(changes, message):
  config = base.get_config()
  config.optim.update(changes)
  with pytest.raises(UserError, match=message):
    optim.build(config.optim, lambda step: 0.1)


def test_sgd_decays_kernels_alone_and_adds_momentum():
  config = base.get_config()
  config.optim.weight_decay = 0.5
  config.optim.momentum = 0.9
  tx = optim.build(config.optim, lambda step: 0.1)
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


def _adamw_by_hand(value, gradients, rate, decay, share):
  """Kingma and Ba with Loshchilov and Hutter's decay, in float64."""
  m = v = 0.0
  for t, gradient in enumerate(gradients, 1):
    m = 0.8 * m + 0.2 * gradient
    v = 0.9 * v + 0.1 * gradient**2
    step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    value = value - share * rate * (step + decay * value)
  return value


@pytest.mark.parametrize(
  ('trained', 'share'), [('all', 1.0), ('all', 0.1), ('classifier', 1.0)]
)
def test_adamw_decays_kernels_apart_from_the_gradient(trained, share):
  config = base.get_config()
  config.optim.update(
    name='adamw',
    momentum=0.8,
    second_momentum=0.9,
    weight_decay=0.5,
    backbone_rate=share,
    trained=trained,
  )
  tx = optim.build(config.optim, lambda step: 0.1)
  start = {
    'block': {'kernel': np.float32([2.0, -3.0]), 'bias': np.float32([1.0])},
    'classifier': {'kernel': np.float32([1.5]), 'bias': np.float32([-1.0])},
  }
  gradients = [
    jax.tree.map(lambda leaf, k=k: np.float32(leaf * k - 0.3), start)
    for k in (0.2, -1.0, 0.7)
  ]
  params = jax.tree.map(jnp.asarray, start)
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  for module, leaves in start.items():
    for leaf, value in leaves.items():
      if trained == 'classifier' and module == 'block':
        np.testing.assert_array_equal(params[module][leaf], value)
        continue
      expected = _adamw_by_hand(
        np.float64(value),
        [gradient[module][leaf] for gradient in gradients],
        rate=0.1,
        decay=0.5 if leaf == 'kernel' else 0.0,
        share=1.0 if module == 'classifier' else share,
      )
      np.testing.assert_allclose(params[module][leaf], expected, rtol=2e-5)
  # Two moments of each number that is trained, and none of the others.
  moments = [leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim]
  assert sum(moments) == 2 * (5 if trained == 'all' else 2)


def test_the_gradient_is_clipped_before_the_decay_is_added():
  config = base.get_config()
  config.optim.update(weight_decay=0.5, momentum=0.0, clip_norm=2.0)
  tx = optim.build(config.optim, lambda step: 0.1)
  params = {'a': {'kernel': jnp.float32(2.0)}, 'b': {'bias': jnp.float32(2.0)}}
  # A norm of 5 becomes 2; one of 1 stays.
  gradients = {'a': {'kernel': jnp.float32(3)}, 'b': {'bias': jnp.float32(4)}}
  updates, state = tx.update(gradients, tx.init(params), params)
  np.testing.assert_allclose(updates['a']['kernel'], -0.1 * (1.2 + 1), 1e-6)
  np.testing.assert_allclose(updates['b']['bias'], -0.1 * 1.6, 1e-6)
  small = {'a': {'kernel': jnp.float32(0.6)}, 'b': {'bias': jnp.float32(0.8)}}
  updates, _ = tx.update(small, state, params)
  np.testing.assert_allclose(updates['a']['kernel'], -0.1 * (0.6 + 1), 1e-6)
  np.testing.assert_allclose(updates['b']['bias'], -0.1 * 0.8, 1e-6)


def test_accumulated_gradients_are_clipped_as_one():
  """The mean of three; its norm, not that of each, is what is clipped."""
  config = base.get_config()
  config.optim.update(weight_decay=0.0, momentum=0.0, clip_norm=2.0)
  # The rates of steps 0 and 3 alone count.
  tx = optim.build(config.optim, lambda step: 0.1 + step, accumulate=3)
  params = {'a': {'kernel': jnp.float32([0.0, 0.0])}}
  state, found = tx.init(params), []
  for gradient in [(9, 0), (0, 12), (0, 0), (3, 0), (-3, 0), (0, 3)]:
    gradients = {'a': {'kernel': jnp.float32(gradient)}}
    updates, state = tx.update(gradients, state, params)
    found.append(updates['a']['kernel'])
  zero = [0, 0]
  expected = [
    *(zero, zero, [-0.1 * 1.2, -0.1 * 1.6]),  # of (3, 4), of norm 5
    *(zero, zero, [0, -3.1]),  # of (0, 1)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_unknown_schedule_and_endless_warm_up():
  config = base.get_config()
  config.optim.schedule = 'cosin'
  with pytest.raises(UserError, match=r"'cosin'.*must be one of cosine, step"):
    _schedule(config)
  config.optim.schedule = 'cosine'
  config.optim.warmup_steps = 10
  with pytest.raises(UserError, match=r'\(=10\) must be less.*\(=10\)'):
    _schedule(config, num_steps=10)


def test_an_update_learns_at_its_steps_mean_rate():
  """Windows of two in a cycle of 8, 4, 2, 2, 1 go over its end."""
  factors = optim.mean_factors([8, 4, 2, 2, 1], 2)
  assert factors == [6, 3, 2, 1.5, 4.5]
  assert optim.mean_factors([8, 4], 1) == [8, 4]
  config = srtg.get_config()
  schedule = _schedule(config, factors=factors)
  # Of updates, by their first steps.
  found = [float(schedule(step)) for step in (0, 2, 4, 6, 8, 10)]
  np.testing.assert_allclose(found, [0.6, 0.2, 0.45, 0.3, 0.15, 0.6], 1e-6)
