"""MTNet-S: as mtnet_m, on 13 frames of 182^2.

  mtnet train --config=mtnet_s --config.data.dir=DIR \
    --workdir=runs/mtnet_s

The crops are 256^2, as for the larger ones, and resized.
"""

import ml_collections

from mtnet_jax.configs import mtnet_m


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration, locked."""
  config = mtnet_m.get_config()
  config.data.num_frames = 13
  config.data.input_size = 182
  config.model.name = 'mtnet_s'
  config.eval.input_size = 182
  return config
