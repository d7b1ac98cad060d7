"""SlowFast from scratch on Kinetics-400, as its authors train it.

  mtnet train --config=slowfast:r50_8x8 --config.data.dir=DIR \
    --workdir=runs/slowfast_r50_8x8

The argument is one of

  r50_4x16    32 frames, 4 of them for the slow pathway; published 75.6 / 92.1
  r50_8x8     32 frames, 8 of them                       published 77.0 / 92.6
  r101_8x8    the same, 101 layers                       published 77.9 / 93.2
  r101_16x8   64 frames, 16 of them                      published 78.9 / 93.5

with top-1 and top-5 of 10 x 3 views of 256^2; the last one's is of more kernels
in time than it has here, where PyTorchVideo has 78.7 / 93.6. Source: C.
Feichtenhofer et al., *SlowFast Networks for Video Recognition*, 2019, section 4
and Table 2: SGD, half a cosine over 256 epochs after a linear warm-up of 34,
weight decay 1e-4, dropout 0.5, BN's statistics of 8 clips. The learning rate
follows the batch, 0.1 at 64.
"""

import ml_collections

from mtnet_jax.configs import base

_FRAMES = {'r50_4x16': 32, 'r50_8x8': 32, 'r101_8x8': 32, 'r101_16x8': 64}
_EPOCH = 3_750  # steps of 64 clips, of Kinetics-400's 240,000 videos


def get_config(network: str = 'r50_8x8') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _FRAMES:
    raise ValueError(f'slowfast:{network} is not one of {", ".join(_FRAMES)}.')
  config = base.get_config()
  config.data.num_frames = _FRAMES[network]
  config.data.frame_stride = 2
  config.data.draw_frames = False
  config.model.name = f'slowfast_{network}'
  set_schedule(config)
  return config


def set_schedule(config: ml_collections.ConfigDict) -> None:
  """Sets what the authors' networks of one and of two pathways share."""
  config.data.short_side = 320
  config.data.crop_size = 224
  config.data.input_size = 224

  config.model.dtype = 'bfloat16'  # BN stays float32
  config.model.dropout = 0.5
  config.model.zero_init_residual = True

  config.optim.schedule = 'cosine'
  config.optim.learning_rate = 0.1
  config.optim.reference_batch = 64
  config.optim.warmup_steps = 34 * _EPOCH
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 64
  config.train.num_epochs = 256.0
  config.train.norm_batch_size = 8

  config.eval.num_clips = 10
  config.eval.num_crops = 3
  config.eval.crop_size = 256
  config.eval.input_size = 256
