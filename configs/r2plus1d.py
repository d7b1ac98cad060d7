"""(2+1)D and mixed convolutions on small clips, by their authors' schedule.

  mtnet train --config=r2plus1d:34_ig65m --config.data.dir=DIR \
    --workdir=runs/r2plus1d_34

The argument is one of

  18           torchvision's R(2+1)D-18     published 67.5, 16 frames
  mc3_18       mixed convolutions           64.0, 16 frames
  34_ig65m     R(2+1)D-34, of 32 frames     80.0, on the weights of IG65M

with top-1 on Kinetics-400. Source: D. Tran et al., *A Closer Look at
Spatiotemporal Convolutions for Action Recognition*, 2018, Section 4.1: 45
epochs of a million clips, 0.01 for 32 of them, a linear warm-up over ten epochs
and a tenth after each further ten. An epoch here is each video once: of the
240,000 of Kinetics-400 it takes 188 of them.
"""

import ml_collections

from mtnet_jax.configs import base

# The network, and frames of a clip.
_ROWS = {
  '18': ('r2plus1d_18', 16),
  'mc3_18': ('mc3_18', 16),
  '34_ig65m': ('r2plus1d_34_ig65m', 32),
}
_EPOCHS = 1_000_000 / 240_000  # of ours in one of theirs
_BATCH = 256


def get_config(network: str = '34_ig65m') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _ROWS:
    raise ValueError(f'r2plus1d:{network} is not one of {", ".join(_ROWS)}.')
  config = base.get_config()
  name, frames = _ROWS[network]
  config.data.num_frames = frames
  config.data.frame_stride = 2
  config.data.draw_frames = False
  config.data.short_side = 128
  config.data.crop_size = 112
  config.data.input_size = 112

  config.model.name = name
  config.model.stem_pool = False
  config.model.dtype = 'bfloat16'  # BN stays float32

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.01
  config.optim.reference_batch = 32
  config.optim.warmup_steps = 10 * 1_000_000 // _BATCH
  config.optim.milestones = tuple(
    round(epoch * _EPOCHS) for epoch in (20, 30, 40)
  )
  config.optim.weight_decay = 1e-4

  config.train.batch_size = _BATCH
  config.train.num_epochs = float(round(45 * _EPOCHS))

  config.eval.num_clips = 10
  config.eval.num_crops = 1
  config.eval.crop_size = 112
  config.eval.input_size = 112
  return config
