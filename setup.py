"""What is installed; everything else about mtnet_jax is in pyproject.toml."""

import setuptools

setuptools.setup(
  packages=[
    'mtnet_jax',
    'mtnet_jax.analysis',
    'mtnet_jax.commands',
    'mtnet_jax.configs',
    'mtnet_jax.convert',
    'mtnet_jax.data',
    'mtnet_jax.datasets',
    'mtnet_jax.datasets.folder',
    'mtnet_jax.datasets.hacs',
    'mtnet_jax.datasets.hmdb51',
    'mtnet_jax.datasets.kinetics',
    'mtnet_jax.datasets.moments_in_time',
    'mtnet_jax.datasets.stick_figures',
    'mtnet_jax.datasets.ucf101',
    'mtnet_jax.datasets.ut_interaction',
    'mtnet_jax.devices',
    'mtnet_jax.evaluation',
    'mtnet_jax.experiments',
    'mtnet_jax.explain',
    'mtnet_jax.export',
    'mtnet_jax.layers',
    'mtnet_jax.models',
    'mtnet_jax.ops',
    'mtnet_jax.ops.native',
    'mtnet_jax.prediction',
    'mtnet_jax.runs',
    'mtnet_jax.thesis',
    'mtnet_jax.training',
  ],
  # Two folders stand elsewhere in the tree; `data` is not `mtnet_jax/data`.
  package_dir={
    'mtnet_jax.configs': 'configs',
    'mtnet_jax.datasets': 'data',
  },
  package_data={
    'mtnet_jax': ['py.typed'],
    'mtnet_jax.convert': ['*.csv'],
    'mtnet_jax.explain': ['*.css', '*.html', '*.js'],
    'mtnet_jax.ops.native': ['*.cc', '*.h'],
    'mtnet_jax.thesis': ['tables/*.csv'],
  },
)
