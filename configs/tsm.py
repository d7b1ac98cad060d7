"""TSM and TANet, 2-D ResNets that exchange frames.

  mtnet train --config=tsm:r50_8 --config.data.dir=DIR --workdir=runs/tsm_r50

The argument is one of

  r50_8, r50_16        TSM: published 74.1, and 72.6 of one crop (16, uniform)
  r101_8               TSM of 101 layers
  tanet_r50_8          TANet: published 76.1
  tanet_r50_16         TANet: published 76.9

with top-1 on Kinetics-400, of 10 x 3 views of 256^2 of the dense sampling that
stands here: 8 or 16 frames of a window of 64. For Something-Something,
--config.data.sampling=uniform takes a frame of each of as many equal parts of
the video; --config.data.flip=False where classes tell left from right.

All begin from ImageNet's weights, which no converter here reads: begin from a
published network of Kinetics-400 (`mtnet convert --list`) by
--config.train.init_from, or from nothing, which takes longer. Sources: J. Lin
et al., *TSM*, 2019, section 5.1: SGD, 100 epochs, 0.01 at a batch of 64, a
tenth of it after 40 and 80, weight decay 1e-4, dropout 0.5; Z. Liu et al.,
*TAM*, 2021, section 4.1: the same, a tenth after 50, 75 and 90.
"""

import ml_collections

from mtnet_jax.configs import base

# The network and its frames.
_ROWS = {
  'r50_8': ('tsm_r50', 8),
  'r50_16': ('tsm_r50', 16),
  'r101_8': ('tsm_r101', 8),
  'tanet_r50_8': ('tanet_r50_8', 8),
  'tanet_r50_16': ('tanet_r50_16', 16),
}
_WINDOW = 64  # frames


def get_config(network: str = 'r50_8') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _ROWS:
    raise ValueError(f'tsm:{network} is not one of {", ".join(_ROWS)}.')
  config = base.get_config()
  name, frames = _ROWS[network]
  config.data.num_frames = frames
  config.data.sampling = 'dense'
  config.data.frame_stride = _WINDOW // frames
  config.data.short_side = 256
  config.data.crop_size = 224
  config.data.input_size = 224

  config.model.name = name
  config.model.dtype = 'bfloat16'  # BN stays float32
  config.model.dropout = 0.5

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.01
  config.optim.reference_batch = 64
  config.optim.milestones = (
    (50, 75, 90) if name.startswith('tanet') else (40, 80)
  )
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 64
  config.train.num_epochs = 100.0

  config.eval.num_clips = 10
  config.eval.num_crops = 3
  config.eval.crop_size = 256
  config.eval.input_size = 256
  return config
