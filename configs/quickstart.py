"""MTNet-XS on the embedded stick figures: `mtnet demo`.

  mtnet prepare stick_figures --out=runs/demo/data
  mtnet train --config=quickstart \
    --config.data.dir=runs/demo/data --workdir=runs/demo
  mtnet eval --workdir=runs/demo

Two CPU cores; the README has time and accuracy. `quickstart:static` is
a control: the same network with temporal kernels of 1 and no recurrence. But
for ties in its selection of frames it cannot tell a clip from its reversal.
"""

import ml_collections

from mtnet_jax.configs import base


def get_config(variant: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration, locked; of the control where it is 'static'."""
  if variant not in ('', 'static'):
    raise ValueError(f"Unknown variant {variant!r}: there is only 'static'.")
  config = base.get_config()
  config.data.num_frames = 8
  config.data.frame_stride = 6  # two seconds, as long as an action
  config.data.start = 'uniform'
  config.data.short_side = 54
  config.data.crop_size = 48
  config.data.input_size = 48
  config.data.num_workers = 1  # it shares two cores with the training

  config.model.name = 'mtnet_xs'
  config.model.dropout = 0.2
  if variant == 'static':
    config.model.temporal_kernels = False
    config.model.recurrence = False

  config.optim.learning_rate = 0.06
  config.optim.reference_batch = 32
  config.optim.warmup_steps = 50
  config.optim.weight_decay = 1e-4

  config.train.batch_size = 32
  config.train.num_epochs = 30.0
  config.train.log_every = 20
  config.train.eval_every = 200
  config.train.checkpoint_every = 100

  config.eval.crop_size = 48
  config.eval.input_size = 48
  config.eval.clips_per_step = 60
  config.eval.reversed_pairs = (
    ('approach', 'part'),
    ('lower_arms', 'raise_arms'),
    ('sit_down', 'stand_up'),
  )
  return config
