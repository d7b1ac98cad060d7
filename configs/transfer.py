"""A trained network on another data set: the thesis's section 4.5.

  mtnet train --config=transfer:srtg:r3d_34 \
    --config.train.init_from=runs/srtg_r3d_34 --config.data.dir=DIR \
    --workdir=runs/transfer

The argument is CONFIG, a file of this folder with its argument, that the
network and everything that is not here are taken from: mtnet_m, srtg:r3d_50,
quickstart. The classifier alone is trained, on features that stay as the run in
`init_from` learned them; where the classes have other names it is a new one.
CONFIG/finetune trains the whole network, everything but the classifier at a
tenth of the rate.

The thesis gives no batch and no weight decay here: they are CONFIG's, and the
rate of 0.01 is for that batch. No multigrid: small clips have other features
than the large ones of the evaluation, and a classifier alone costs little.
"All of our experiments" in the thesis's section 4.4.1 may mean these too:
  --config.train.long_cycle=True --config.train.short_cycle=True
"""

import ml_collections

from mtnet_jax.configs import _recipes


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration, locked.

  Args:
    argument: CONFIG or CONFIG/finetune, as above.

  Raises:
    ValueError: an unknown CONFIG; the message lists them.
  """
  config, finetune = _recipes.load_for('transfer', argument)

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.01
  config.optim.reference_batch = config.train.batch_size
  config.optim.warmup_steps = 0
  config.optim.milestones = (40, 60)  # epochs
  config.optim.decay = 0.1
  config.optim.momentum = 0.9
  config.optim.backbone_rate = 0.1 if finetune else 1.0
  config.optim.trained = 'all' if finetune else 'classifier'

  config.train.num_epochs = 80.0
  config.train.num_steps = 0
  config.train.long_cycle = False
  config.train.short_cycle = False
  # One shape alone: BN's moving averages will do, if they move at all.
  config.train.precise_norm_steps = 0
  return config
