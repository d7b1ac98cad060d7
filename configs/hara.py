"""3-D ResNets and ResNeXts of cubic kernels on small clips.

  mtnet train --config=hara:r3d_50 --config.data.dir=DIR --workdir=runs/r3d_50

The argument is r3d_18, r3d_34, r3d_50, r3d_101, r3d_152, resnext3d_50,
resnext3d_101 or resnext3d_152. Clips are 16 successive frames of 112^2. Their
authors print the mean of top-1 and top-5 on Kinetics-400, of the networks of
2017: 66.1, 71.0, 72.2, 73.3 and 73.7 % of r3d_18 to r3d_152, 75.4 % of
resnext3d_101. Source: H. Kataoka et al., *Would Mega-scale Datasets Further
Enhance Spatiotemporal 3D CNNs?*, 2020, whose 200 epochs of batches of 128 these
are, a tenth of the learning rate after 50, 100 and 150.
"""

import ml_collections

from mtnet_jax.configs import base

_NETWORKS = (
  *(f'r3d_{depth}' for depth in (18, 34, 50, 101, 152)),
  *(f'resnext3d_{depth}' for depth in (50, 101, 152)),
)


def get_config(network: str = 'r3d_50') -> ml_collections.ConfigDict:
  """Returns the configuration of a network, locked."""
  if network not in _NETWORKS:
    raise ValueError(f'hara:{network} is not one of {", ".join(_NETWORKS)}.')
  config = base.get_config()
  config.data.num_frames = 16
  config.data.frame_stride = 1
  config.data.draw_frames = False
  config.data.short_side = 128
  config.data.crop_size = 112
  config.data.input_size = 112

  own = network.startswith('r3d')
  config.model.name = f'hara_{network}' if own else network
  config.model.dtype = 'bfloat16'  # BN stays float32

  config.optim.schedule = 'step'
  config.optim.learning_rate = 0.1
  config.optim.reference_batch = 128
  config.optim.milestones = (50, 100, 150)
  config.optim.weight_decay = 1e-3

  config.train.batch_size = 128
  config.train.num_epochs = 200.0

  config.eval.num_clips = 10
  config.eval.num_crops = 1
  config.eval.crop_size = 112
  config.eval.input_size = 112
  return config
