"""Parameters and multiply-adds counted by hand."""

import jax
from flax import linen as nn

from mtnet_jax import models
from mtnet_jax.analysis import cost
from mtnet_jax.layers import recurrent
from mtnet_jax.layers.class_regularization import ClassRegularization
from mtnet_jax.layers.classifier import Classifier
from mtnet_jax.layers.conv import Conv3D
from mtnet_jax.layers.norm import BatchNorm


class EveryKindOfLayer(nn.Module):
  """A strided and a channel-separated layer, a recurrence, a classifier."""

  @nn.compact
  def __call__(self, x):
    x = Conv3D(4, (1, 3, 3), (1, 2, 2))(x)
    x = BatchNorm(use_running_average=True)(x)
    x = Conv3D(4, (3, 3, 3), groups=4, use_bias=True)(x)
    x = recurrent.build('gru', 5, num_layers=2)(x.mean(axis=(2, 3)))
    return nn.Dense(7)(x.mean(axis=1))


class Regularized(nn.Module):
  """Class Regularisation of a convolution by a classifier."""

  @nn.compact
  def __call__(self, x):
    classifier = Classifier(4, 7)
    x = Conv3D(5, (1, 1, 1))(x)
    x, _ = ClassRegularization(0.5)(x, classifier.kernel.T)
    return classifier(Conv3D(4, (1, 1, 1))(x).mean(axis=(1, 2, 3)))


CLIP = (6, 9, 8, 3)  # after the stride 6 × 5 × 4


def test_macs_by_hand():
  expected = (
    (6 * 5 * 4) * (3 * 9 * 4)  # dense: positions × kernel
    + (6 * 5 * 4) * (27 * 4)  # channel-separated
    + 6 * (4 * 15 + 5 * 15)  # first layer: input and recurrent products
    + 6 * (5 * 15 + 5 * 15)
    + 5 * 7
  )
  got = cost.macs(EveryKindOfLayer(), CLIP)
  assert got == expected and isinstance(got, int)


def test_macs_of_class_regularization():
  positions = 6 * 9 * 8
  expected = (
    positions * (3 * 5 + 5 * 4)
    + 7 * 4 * 5  # the maps of seven classes
    + 7 * 5  # their scores
    + 4 * 7  # the classifier, once
  )
  assert cost.macs(Regularized(), CLIP) == expected


def test_parameters_by_hand():
  expected = (
    3 * 9 * 4
    + 2 * 4  # scale and bias; the moving statistics do not count
    + (27 * 4 + 4)
    + (4 * 15 + 5 * 15 + 15)
    + (5 * 15 + 5 * 15 + 15)
    + (5 * 7 + 7)
  )
  got = cost.parameter_count(EveryKindOfLayer(), CLIP)
  assert got == expected and isinstance(got, int)


def test_plain_sums_of_a_network_stage_by_stage():
  # X3D-S's stem and head, the parts that no block repeats, at 13×160².
  half = 13 * 80 * 80
  stem = half * (27 * 24) + half * (5 * 24)
  head = 13 * 5 * 5 * (192 * 432) + 432 * 2048 + 2048 * 400
  model = models.build('x3d_s', 400)
  without_blocks = model.copy(blocks=(0, 0, 0, 0))
  # Without blocks the head's convolution sees the stem.
  got = cost.macs(without_blocks, (13, 160, 160, 3))
  assert got == stem + head - 13 * 5 * 5 * (192 * 432) + half * (24 * 432)


def test_frames_scale_the_macs_not_the_parameters():
  model = models.build('mtnet_xs', 5, recurrence=False)
  a, b = (8, 32, 32, 3), (16, 32, 32, 3)
  assert cost.parameter_count(model, a) == cost.parameter_count(model, b)
  head = 96 * 128 + 128 * 5
  assert cost.macs(model, b) - head == 2 * (cost.macs(model, a) - head)


def test_nothing_is_allocated():
  before = sum(a.nbytes for a in jax.live_arrays())
  cost.macs(models.build('r3d_18', 400), (16, 112, 112, 3))
  after = sum(a.nbytes for a in jax.live_arrays())
  assert after - before < 10_000  # the network has 133 MB
