"""MTNet-L: as mtnet_m, with deeper stages.

  mtnet train --config=mtnet_l --config.data.dir=DIR \
    --workdir=runs/mtnet_l

On TPU v5e multigrid's cycles are estimated to pay from 4,800 videos a device
on, or 530 if the host compiles all shapes at once (docs/scale.md).
"""

import ml_collections

from mtnet_jax.configs import mtnet_m


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration, locked."""
  config = mtnet_m.get_config()
  config.model.name = 'mtnet_l'
  return config
