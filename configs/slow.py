"""Networks of one pathway on Kinetics-400: Slow-only, C2D, I3D, R(2+1)D-50.

  mtnet train --config=slow:r50_8x8 --config.data.dir=DIR \
    --workdir=runs/slow_r50_8x8

The argument is one of

  r50_4x16        Slow-only, 4 frames      published 72.6 / 90.3
  r50_8x8         Slow-only, 8 frames      published 74.9 / 91.5
  r101_8x8        Slow-only, 101 layers    76.28 of MMAction2, on ImageNet's
  c2d_r50_8x8     frame by frame           71.46 of PyTorchVideo
  i3d_r50_8x8     I3D, its strides there   73.27 of PyTorchVideo
  i3d_r50_32x2    I3D, MMAction2's         73.47, on ImageNet's weights
  r2plus1d_r50_16x4  PyTorchVideo's R(2+1)D 76.01 of PyTorchVideo

with the accuracy on 10 x 3 views of 256^2. Source: C. Feichtenhofer et al.,
*SlowFast Networks for Video Recognition*, 2019, Table 5a, whose schedule all of
them have here; see configs/slowfast.py.
"""

import ml_collections

from mtnet_jax.configs import base, slowfast

# The network, frames of a clip and their stride.
_ROWS = {
  'r50_4x16': ('slow_r50', 4, 16),
  'r50_8x8': ('slow_r50', 8, 8),
  'r101_8x8': ('slow_r101', 8, 8),
  'c2d_r50_8x8': ('c2d_r50', 8, 8),
  'i3d_r50_8x8': ('i3d_r50', 8, 8),
  'i3d_r50_32x2': ('i3d_r50_32x2', 32, 2),
  'r2plus1d_r50_16x4': ('ptv_r2plus1d_r50', 16, 4),
}


def get_config(network: str = 'r50_8x8') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _ROWS:
    raise ValueError(f'slow:{network} is not one of {", ".join(_ROWS)}.')
  config = base.get_config()
  name, frames, stride = _ROWS[network]
  config.model.name = name
  config.data.num_frames = frames
  config.data.frame_stride = stride
  config.data.draw_frames = False
  slowfast.set_schedule(config)
  return config
