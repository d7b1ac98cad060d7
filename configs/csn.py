"""Channel-separated networks on Kinetics-400.

  mtnet train --config=csn:ir_152 --config.data.dir=DIR --workdir=runs/ir_csn

The argument is ir_50, ir_101, ir_152, ip_50, ip_101 or ip_152. Published top-1,
10 x 3 views of 256^2: ir-CSN-101 77.0 (PyTorchVideo, from scratch), ir-CSN-152
76.5 and ip-CSN-152 77.8 (from scratch), 82.8 to 82.9 and 82.7 on the weights of
IG65M (`mtnet convert --list`). Sources: D. Tran et al., *Video Classification
with Channel-Separated Convolutional Networks*, 2019; MMAction2's schedule for
fine-tuning on Kinetics-400: 58 epochs, 0.08 at a batch of 96, a tenth of it
after 32 and 48, a linear warm-up of 16 epochs, weight decay 1e-4. From scratch
it takes 180: --config.train.num_epochs=180 --config.optim.schedule=cosine.
"""

import ml_collections

from mtnet_jax.configs import base

_NETWORKS = ('ir_50', 'ir_101', 'ir_152', 'ip_50', 'ip_101', 'ip_152')
_EPOCH = 2_500  # steps of 96 clips, of Kinetics-400's 240,000 videos


def get_config(network: str = 'ir_152') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _NETWORKS:
    raise ValueError(f'csn:{network} is not one of {", ".join(_NETWORKS)}.')
  config = base.get_config()
  config.data.num_frames = 32
  config.data.frame_stride = 2
  config.data.draw_frames = False
  config.data.short_side = 256
  config.data.crop_size = 224
  config.data.input_size = 224

  kind, depth = network.split('_')
  config.model.name = f'{kind}_csn_{depth}'
  config.model.norm_epsilon = 1e-3
  config.model.dtype = 'bfloat16'  # BN stays float32
  config.model.dropout = 0.5

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.08
  config.optim.reference_batch = 96
  config.optim.warmup_steps = 16 * _EPOCH
  config.optim.milestones = (32, 48)
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 96
  config.train.num_epochs = 58.0

  config.eval.num_clips = 10
  config.eval.num_crops = 3
  config.eval.crop_size = 256
  config.eval.input_size = 256
  return config
