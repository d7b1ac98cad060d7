"""Installs mtnet_jax."""

import setuptools

setuptools.setup(
  name='mtnet_jax',
  version='0.1.0',
  description='Spatio-temporal action recognition in JAX and Flax.',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['mtnet_jax', 'mtnet_jax.*']),
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8.1',
    'av>=18,<19',
    'chex>=0.1.90',
    'etils>=1.10',
    'flax>=0.12,<0.13',
    'grain>=0.2.12,<0.3',
    'jax>=0.10.2,<0.12',
    'jaxtyping>=0.3',
    'matplotlib>=3.9',
    'ml_collections>=1.0',
    'msgpack>=1.0',
    'numpy>=2.0',
    'opencv-python-headless>=4.10',
    'optax>=0.2.5,<0.3',
    'orbax-checkpoint>=0.11.20,<0.13',
    'rich>=13',
    'tensorboardX>=2.6.2',
  ],
  extras_require={
    'dev': ['pytest>=8', 'ruff>=0.9'],
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]'],
  },
)
