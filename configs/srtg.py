"""SRTG on any residual backbone, the recipe of the thesis's section 4.4.1.

  mtnet train --config=srtg:r3d_34 --config.data.dir=DIR \
    --workdir=runs/srtg_r3d_34

The argument is a backbone: r3d_18 to r3d_152, r2plus1d_18 to r2plus1d_152 or
wide_r3d_50. Inputs: 16 frames x 224^2 at stride 2 (HACS; 3 for Moments in Time
and 5 for Kinetics: --config.data.frame_stride=5), 32 clips a step, in shapes
that both cycles of multigrid training change. The plain backbone, to compare
with: --config.model.name=r3d_34.
"""

import ml_collections

from mtnet_jax.configs import base


def get_config(backbone: str = 'r3d_34') -> ml_collections.ConfigDict:
  """Returns the configuration of a backbone, locked."""
  config = base.get_config()
  config.data.num_frames = 16
  config.data.frame_stride = 2
  config.data.start = 'uniform'
  config.data.short_side = 320
  config.data.crop_size = 224
  config.data.input_size = 224
  config.data.augment_share = 0.8

  config.model.name = f'srtg_{backbone}'
  config.model.dtype = 'bfloat16'  # BN, recurrences and gates stay float32

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.1
  config.optim.reference_batch = 32
  config.optim.milestones = (40, 70, 120)  # epochs
  config.optim.weight_decay = 1e-5

  config.train.batch_size = 32
  config.train.num_epochs = 150.0
  config.train.long_cycle = True
  config.train.short_cycle = True
  config.train.precise_norm_steps = 200  # as in configs/mtnet_m.py

  config.eval.crop_size = 256
  config.eval.input_size = 256
  return config
