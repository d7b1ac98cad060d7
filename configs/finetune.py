"""The base of `mtnet finetune`, which trains a classifier of your own videos.

  mtnet finetune --data=DIR --out=runs/mine --from=runs/x3d_s

The command sets what depends on the videos (steps, batch, stride, augmentation,
views), and says why; see `mtnet_jax/training/recipe.py`. With

  mtnet train --config=finetune --config.data.dir=DIR \
    --config.train.init_from=runs/x3d_s --workdir=runs/mine

it is as it stands here. The argument is a network: `finetune:x3d_s`.
"""

import ml_collections

from mtnet_jax.configs import base


def get_config(network: str = 'mtnet_xs') -> ml_collections.ConfigDict:
  """Returns the configuration, locked."""
  config = base.get_config()
  config.data.num_frames = 8
  config.data.frame_stride = 6
  config.data.short_side = 128
  config.data.crop_size = 112
  config.data.input_size = 112
  config.data.num_workers = 1

  config.model.name = network
  config.model.dropout = 0.2

  config.optim.learning_rate = 0.06
  config.optim.reference_batch = 32
  config.optim.warmup_steps = 30
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 16
  config.train.num_steps = 600
  config.train.log_every = 20
  config.train.eval_every = 100
  config.train.checkpoint_every = 100

  config.eval.crop_size = 112
  config.eval.input_size = 112
  config.eval.num_clips = 4
  return config
