"""The parameters of every network, and the multiply-adds of some.

The counts of r3d, r2plus1d and wide_r3d without SRTG are those that give the
thesis's Table 6.3 and 5.1 in millions (63.7, 36.7, 69.1, 61.8, 34.8, 67.2 and
140.9), X3D's those of its authors. SRTG adds 16·c² + 8·c for a block of c
channels: two LSTM layers of four gates. 400 classes.
"""

import pytest

from mtnet_jax import models
from mtnet_jax.analysis import cost

PARAMETERS = {
  'r3d_18': 33_371_472,
  'r3d_34': 63_681_104,
  'r3d_50': 36_724_688,
  'r3d_101': 69_060_048,
  'r3d_152': 95_690_704,
  'r2plus1d_18': 31_505_325,
  'r2plus1d_34': 61_831_661,
  'r2plus1d_50': 34_863_287,
  'r2plus1d_101': 67_218_231,
  'r2plus1d_152': 93_866_167,
  'wide_r3d_50': 140_937_936,
  'srtg_r3d_18': 44_527_952,
  'srtg_r3d_34': 83_830_864,
  'srtg_r3d_50': 56_874_448,
  'srtg_r3d_101': 107_070_416,
  'srtg_r3d_152': 148_411_856,
  'srtg_r2plus1d_18': 42_661_805,
  'srtg_r2plus1d_34': 81_981_421,
  'srtg_r2plus1d_50': 55_013_047,
  'srtg_r2plus1d_101': 105_228_599,
  'srtg_r2plus1d_152': 146_587_319,
  'srtg_wide_r3d_50': 161_087_696,
  'mt_r3d_50': 36_863_168,
  'mtnet_xs': 204_829,
  'mtnet_s': 8_577_585,
  'mtnet_m': 8_577_585,
  'mtnet_l': 16_564_003,
  'x3d_s': 3_794_274,
  'x3d_m': 3_794_274,
  'x3d_l': 6_153_384,
}

# GMACs of a clip of `DEFAULT_CLIPS`. X3D's are published.
GMACS = {
  'x3d_s': 1.96,
  'x3d_m': 4.73,
  'x3d_l': 18.37,
  'mtnet_m': 5.79,
  'mtnet_l': 11.19,
}


def test_every_model_has_a_row():
  assert sorted(PARAMETERS) == sorted(models.NAMES)
  assert sorted(models.DEFAULT_CLIPS) == sorted(models.NAMES)


@pytest.mark.parametrize('name', models.NAMES)
def test_parameter_count(name):
  model = models.build(name, 400)
  assert cost.parameter_count(model, (4, 32, 32, 3)) == PARAMETERS[name]


@pytest.mark.parametrize('name', GMACS)
def test_gmacs(name):
  frames, size = models.DEFAULT_CLIPS[name]
  got = cost.macs(models.build(name, 400), (frames, size, size, 3))
  assert round(got / 1e9, 2) == GMACS[name]
