"""Cycle consistency by hand, and the three states of the temporal gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.layers import srtg

# Three frames far apart on a line, one channel.
LINE = np.array([[[0.0], [10.0], [20.0]]], np.float32)


def soft_nearest_neighbor_loop(a, b):
  """4.6 in float64, frame by frame."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  out = np.zeros_like(a)
  for n in range(a.shape[0]):
    for t in range(a.shape[1]):
      d = np.array([np.sum((a[n, t] - bi) ** 2) for bi in b[n]])
      z = np.exp(-(d - d.min()))
      out[n, t] = (z / z.sum()) @ b[n]
  return out


def consistent_loop(a, b):
  """4.7 in float64, both ways."""
  found = []
  for x, y in ((a, b), (b, a)):
    soft = soft_nearest_neighbor_loop(x, y)
    d = np.sum((soft[:, :, None] - np.asarray(y, np.float64)[:, None]) ** 2, -1)
    found.append(np.all(np.argmin(d, -1) == np.arange(a.shape[1]), -1))
  return found[0] & found[1]


def test_soft_nearest_neighbor_by_hand():
  # Distances² of a = 1 from b = 0 and 2 are 1 and 1, of a = 0 they are 0 and 4.
  a = np.array([[[1.0], [0.0]]], np.float32)
  b = np.array([[[0.0], [2.0]]], np.float32)
  w = np.exp(-4) / (1 + np.exp(-4))
  got = srtg.soft_nearest_neighbor(a, b)
  np.testing.assert_allclose(got, [[[1.0], [2 * w]]], rtol=1e-6)


def test_soft_nearest_neighbor_equals_a_float64_loop():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 3, 6, 4)).astype(np.float32)
  got = srtg.soft_nearest_neighbor(a, b)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, soft_nearest_neighbor_loop(a, b), atol=1e-5)


def test_soft_nearest_neighbor_of_large_values_is_stable():
  # Distances² up to 1e8: without the maximum subtracted all weights vanish.
  a = np.array([[[1e4, 0.0], [0.0, 1e4]]], np.float32)
  np.testing.assert_array_equal(srtg.soft_nearest_neighbor(a, a + 1), a + 1)


def test_cycle_consistent_equals_a_float64_loop():
  # From unrelated to nearly equal embeddings, so that both answers occur.
  rng = np.random.default_rng(1)
  a = rng.normal(size=(40, 4, 6))
  noise = np.linspace(0, 2, 40).reshape(-1, 1, 1)
  b = a + noise * rng.normal(size=a.shape)
  a, b = a.astype(np.float32), b.astype(np.float32)
  expected = consistent_loop(a, b)
  assert 5 < expected.sum() < 35
  np.testing.assert_array_equal(srtg.cycle_consistent(a, b), expected)


@pytest.mark.parametrize(
  'b, expected',
  [
    (LINE, True),
    (LINE + 1, True),
    (LINE[:, [1, 0, 2]], False),  # the right points at the wrong times
    (LINE[:, ::-1], False),
  ],
)
def test_separated_points(b, expected):
  assert srtg.cycle_consistent(LINE, b).tolist() == [expected]


def test_both_directions_count():
  # Every frame of a (0, 9, 20) is nearest to its own of b (0, 15, 20). Back,
  # b's second frame is nearer to a's third (by 5) than to its own (by 6).
  a = np.array([[[0.0], [9.0], [20.0]]], np.float32)
  b = np.array([[[0.0], [15.0], [20.0]]], np.float32)
  np.testing.assert_allclose(srtg.soft_nearest_neighbor(a, b), b, atol=1e-3)
  back = srtg.soft_nearest_neighbor(b, a)
  np.testing.assert_allclose(back, [[[0.0], [20.0], [20.0]]], atol=1e-3)
  assert srtg.cycle_consistent(a, b).tolist() == [False]
  assert srtg.cycle_consistent(b, a).tolist() == [False]


def test_ties_go_to_the_first_frame():
  # Frames 1 and 2 of b are the same point. Frame 2 then finds frame 1.
  b = np.array([[[0.0], [10.0], [10.0]]], np.float32)
  assert srtg.cycle_consistent(b, b).tolist() == [False]
  # A single repeated frame finds itself as the first.
  assert srtg.cycle_consistent(b[:, 1:2], b[:, 2:]).tolist() == [True]


def test_weights_fall_with_distance():
  # With a positive sign in 4.6 frame 0 would find the far end of the line.
  got = srtg.soft_nearest_neighbor(LINE, LINE)
  np.testing.assert_allclose(got, LINE, atol=1e-6)


def test_one_distance_for_all_channels():
  # Frame 0 of a is near b_0 in the first channel and near b_1 in the second.
  # Over both channels b_0 is nearer, 0 + 9 against 25 + 1, and wins both; a
  # softmax for each channel would mix them into (0, 1).
  a = np.array([[[0.0, 0.0], [0.0, 0.0]]], np.float32)
  b = np.array([[[0.0, 3.0], [5.0, 1.0]]], np.float32)
  got = srtg.soft_nearest_neighbor(a, b)
  np.testing.assert_allclose(got[0, 0], [0.0, 3.0], atol=1e-5)


def fuse(module, x, variables=None):
  if variables is None:
    variables = module.init(jax.random.key(0), x)
  return module.apply(variables, x), variables


def test_inactive_gate_fuses_every_clip():
  x = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
  module = srtg.SqueezeAndRecursion('gru', gate=False)
  (out, share), variables = fuse(module, x)
  hidden = srtg.recurrent.build('gru', 4).apply(
    {'params': variables['params']['recurrence']}, x.mean(axis=(2, 3))
  )
  assert share is None
  np.testing.assert_allclose(out, x * hidden[:, :, None, None, :], atol=1e-6)


def gated_example():
  """A GRU whose states follow its input, and one clip that it cannot follow.

  With the update gate shut and the candidate `tanh(x)`, h is `tanh(x)`: close
  to x while x is small. The first clip's frames are apart; the second clip's
  are all alike, so that the frame cannot be told.
  """
  frames = np.array([[-0.9, 0.0, 0.9], [0.5, 0.5, 0.5]], np.float32)
  x = frames[:, :, None, None, None] * np.ones((1, 1, 2, 2, 1), np.float32)
  layer = {
    'kernel_x': np.array([[0.0, 0.0, 1.0]], np.float32),
    'kernel_h': np.zeros((1, 3), np.float32),
    'bias': np.array([-50.0, 0.0, 0.0], np.float32),
  }
  return x, {'params': {'recurrence': {'layer_0': layer}}}


def test_active_gate_decides_clip_by_clip():
  x, variables = gated_example()
  module = srtg.SqueezeAndRecursion('gru', num_layers=1)
  (out, share), _ = fuse(module, x, variables)
  np.testing.assert_allclose(out[0], x[0] * np.tanh(x[0]), rtol=1e-5)
  np.testing.assert_array_equal(out[1], x[1])
  assert share == 0.5 and share.dtype == jnp.float32 and share.shape == ()


def test_no_gradient_through_the_decision():
  x, variables = gated_example()
  module = srtg.SqueezeAndRecursion('gru', num_layers=1)

  def loss(x):
    return jnp.sum(module.apply(variables, x)[0])

  got = jax.grad(loss)(x)
  # Open: x·tanh(m) with m the mean of the four x of a frame. Closed: x.
  m = x[0]
  expected = np.tanh(m) + m * (1 - np.tanh(m) ** 2)
  np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(got[1], np.ones_like(x[1]))


def test_single_frame_is_open_and_not_counted():
  x = np.random.default_rng(0).normal(size=(2, 1, 2, 2, 3)).astype(np.float32)
  (gated, share), variables = fuse(srtg.SqueezeAndRecursion(), x)
  assert share is None
  plain, _ = srtg.SqueezeAndRecursion(gate=False).apply(variables, x)
  np.testing.assert_array_equal(gated, plain)
  assert srtg.cycle_consistent(x[:, :, 0, 0], -x[:, :, 0, 0]).all()


def test_half_precision_activations_keep_their_dtype():
  x, variables = gated_example()
  module = srtg.SqueezeAndRecursion('gru', num_layers=1)
  (out, share), _ = fuse(module, jnp.asarray(x, jnp.bfloat16), variables)
  assert out.dtype == jnp.bfloat16 and share.dtype == jnp.float32


def test_what_the_gate_compares():
  rng = np.random.default_rng(0)
  pooled, hidden = rng.normal(size=(2, 2, 5, 3)).astype(np.float32)
  one, other = srtg.embed(pooled, hidden, 'hidden')
  assert one is pooled and other is hidden
  one, other = srtg.embed(pooled, hidden, 'fused')
  assert one is pooled
  np.testing.assert_allclose(other, pooled * hidden)
  for given, got in zip(
    (pooled, hidden), srtg.embed(pooled, hidden, 'normalized'), strict=True
  ):
    for clip, normalized in zip(np.float64(given), got, strict=True):
      centered = clip - clip.mean(axis=0)
      size = np.sqrt((centered**2).sum() / clip.size)
      np.testing.assert_allclose(normalized, centered / size, rtol=1e-4)
  still = np.ones((1, 4, 3), np.float32)
  assert not np.any(srtg.embed(still, still, 'normalized'))


def test_embeddings_open_other_gates():
  """States far from x but in its order: near once both are normalized."""
  frames = np.array([[-9.0, 0.0, 9.0]], np.float32)
  x = frames[:, :, None, None, None] * np.ones((1, 1, 2, 2, 1), np.float32)
  _, variables = gated_example()
  module = srtg.SqueezeAndRecursion('gru', num_layers=1)
  # tanh of -9, 0 and 9 are -1, 0 and 1: frames 1 and 2 of x find the last one.
  (_, share), _ = fuse(module, x, variables)
  assert share == 0
  (_, share), _ = fuse(module.clone(embedding='normalized'), x, variables)
  assert share == 1
  (_, share), _ = fuse(module.clone(embedding='fused'), x, variables)
  assert share == 0  # -9 and 9 times their states are both 9


def test_a_gate_that_only_measures():
  x, variables = gated_example()
  module = srtg.SqueezeAndRecursion('gru', num_layers=1)
  plain, _ = module.clone(gate=False).apply(variables, x)
  for decides in (False, jnp.asarray(False)):
    out, share = module.clone(decides=decides).apply(variables, x)
    np.testing.assert_array_equal(out, plain)
    assert share == 0.5
  (out, _), (gated, _) = (
    module.clone(decides=decides).apply(variables, x)
    for decides in (jnp.asarray(True), True)
  )
  np.testing.assert_array_equal(out, gated)
  assert np.any(out != plain)
