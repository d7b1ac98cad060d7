"""I3D of Inception-v1 on Kinetics-400: RGB clips of 64 successive frames.

  mtnet train --config=i3d --config.data.dir=DIR --workdir=runs/i3d

The authors print 68.4 / 88.0 % for RGB from scratch and 71.1 / 89.3 % on
ImageNet's weights, on whole videos of 25 frames a second. Source: J. Carreira,
A. Zisserman, *Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset*, 2017, Section 2.5: 110,000 steps with momentum 0.9, and a tenth of a
learning rate that is not printed where the validation loss stood still. The
batch, the cosine and the rate are this project's.
"""

import ml_collections

from mtnet_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration, locked."""
  config = base.get_config()
  config.data.num_frames = 64
  config.data.frame_stride = 1
  config.data.draw_frames = False
  config.data.short_side = 256
  config.data.crop_size = 224
  config.data.input_size = 224

  config.model.name = 'i3d_inception'
  config.model.dtype = 'bfloat16'  # BN stays float32
  # Pixels from -1 to 1
  config.model.input_mean = (0.5, 0.5, 0.5)
  config.model.input_std = (0.5, 0.5, 0.5)

  config.optim.schedule = 'cosine'
  config.optim.learning_rate = 0.1
  config.optim.reference_batch = 64
  config.optim.warmup_steps = 1_000
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 64
  config.train.num_steps = 110_000

  config.eval.num_clips = 4  # of ten seconds they see nearly all
  config.eval.num_crops = 1
  config.eval.crop_size = 224
  config.eval.input_size = 224
  return config
