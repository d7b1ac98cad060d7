"""MF-Net on Kinetics-400.

  mtnet train --config=mfnet --config.data.dir=DIR --workdir=runs/mfnet

Published: 72.8 / 90.4 %, begun with an inflated network of ImageNet, which
there is none of here. Source: Y. Chen et al., *Multi-Fiber Networks for Video
Recognition*, 2018, and the authors' repository PyTorch-MFNet, whose learning
rates these are: a tenth after 18, 28, 34 and 38 million clips. An epoch has
the 240,000 videos of Kinetics-400. The authors draw a stride of 1, 2 or 3
frames for each clip of 16.
"""

import ml_collections

from mtnet_jax.configs import base

_EPOCH = 240_000  # clips


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration, locked."""
  config = base.get_config()
  config.data.num_frames = 16
  config.data.frame_stride = 2
  config.data.draw_frames = False
  config.data.short_side = 256
  config.data.crop_size = 224
  config.data.input_size = 224

  config.model.name = 'mfnet'
  config.model.dtype = 'bfloat16'  # BN stays float32
  # Of 0 to 255, less a mean, times 0.0167
  config.model.input_mean = (124 / 255, 117 / 255, 104 / 255)
  config.model.input_std = (1 / (0.0167 * 255),) * 3

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.05
  config.optim.reference_batch = 128
  config.optim.milestones = tuple(
    round(clips / _EPOCH)
    for clips in (18_000_000, 28_000_000, 34_000_000, 38_000_000)
  )
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 128
  config.train.num_epochs = float(round(40_000_000 / _EPOCH))

  config.eval.num_clips = 10
  config.eval.num_crops = 3
  config.eval.crop_size = 224
  config.eval.input_size = 224
  return config
