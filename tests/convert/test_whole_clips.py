"""At full width, on the clips that networks are made for, PyTorch agrees.

In float64: through so many layers of random weights, what float32 rounds off
opens or shuts a gate here or there.
"""

import numpy as np
import pytest

from mtnet_jax import models

pytest.importorskip('torch')
from tests.convert import tensor_names, torch_networks
from tests.convert.test_parity import compare

pytestmark = pytest.mark.check


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
  ('name', 'family'),
  [
    ('r3d_18', 'torchvision'),
    ('r2plus1d_18', 'torchvision'),
    ('srtg_r3d_34', 'srtg'),
    ('srtg_r2plus1d_50', 'srtg'),
    ('wide_r3d_50', 'srtg'),
    ('x3d_s', 'pyslowfast'),
    ('x3d_m', 'pyslowfast'),
  ],
)
def test_whole_clips(name, family):
  if family == 'pyslowfast':
    network = torch_networks.X3D(tensor_names.X3D_DEPTHS[name], 7)
  else:
    network = torch_networks.VideoResNet(name, family == 'srtg', 7)
  clip = models.DEFAULT_CLIPS[name]
  compare(network, name, family, clip=clip, dtype=np.float64)
