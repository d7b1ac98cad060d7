"""Adds Class Regularisation to a trained network (thesis, 6.4.2).

  mtnet train --config=class_regularization:mtnet_m \
    --config.train.init_from=runs/mtnet_m --config.data.dir=DIR \
    --workdir=runs/mtnet_m_cr

The argument is CONFIG, a file of this folder with its argument, such as
mtnet_m, srtg:r3d_50 or quickstart. The network, and all keys that are not set
here, are CONFIG's. The network of `init_from` gets Class Regularisation after
each of its stages, and the maps that it needs are all that is trained: the
classes must be those of that run. CONFIG/finetune trains them on, from a run
that has such maps (of one without, the log says that they are new), at a
hundredth of the rate ("every 70 steps" in the thesis must mean epochs).

It works for backbones without SRTG, as in the thesis, and for MTNets:
  --config=class_regularization:srtg:r3d_50 \
  --config.model.name=r3d_50

To train a whole network with Class Regularisation from the start, take its own
recipe: --config=mtnet_m --config.model.class_regularization=True.

There is no multigrid: early activations of small clips differ from those in
evaluation, and the maps cost little to train.
"""

import ml_collections

from mtnet_jax.configs import _recipes

# Settings for the maps, whatever the network was trained with.
MAPS = {
  'optim.schedule': 'step',
  'optim.learning_rate': 0.1,
  'optim.reference_batch': 16,
  'optim.warmup_steps': 0,
  'optim.milestones': (50, 100),  # epochs
  'optim.decay': 0.1,
  'optim.momentum': 0.9,
  'optim.weight_decay': 1e-5,
  'optim.backbone_rate': 1.0,
  'optim.trained': 'class_regularization',
  'train.batch_size': 16,
  'train.num_epochs': 120.0,
  'train.num_steps': 0,
  'train.long_cycle': False,
  'train.short_cycle': False,
  'train.precise_norm_steps': 0,  # the statistics stay as they are
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration, locked.

  Args:
    argument: CONFIG or CONFIG/finetune, as above.

  Raises:
    ValueError: an unknown CONFIG; the message lists them.
  """
  config, finetune = _recipes.load_for('class_regularization', argument)
  config.model.class_regularization = True
  config.update_from_flattened_dict(MAPS)
  if finetune:
    config.optim.learning_rate = 1e-3
    config.optim.milestones = (70,)
  return config
