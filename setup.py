"""Installs mtnet_jax."""

import setuptools

setuptools.setup(
  name='mtnet_jax',
  version='0.1.0',
  description='Spatio-temporal action recognition in JAX and Flax.',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['mtnet_jax', 'mtnet_jax.*']),
  package_data={
    'mtnet_jax.explain': ['*.css', '*.html', '*.js'],
    'mtnet_jax.ops.native': ['*.cc', '*.h'],
  },
  # From the versions that the tests pass with on Python 3.11 (jax 0.10.2) to
  # those on 3.12 (jax 0.12.0). PyAV 19 renames `metadata_errors`.
  install_requires=[
    'absl-py>=2.5',
    'array_record>=0.8.6,<0.9',
    'av>=18,<19',
    'flatbuffers>=25',  # jax.export asks for it
    'flax>=0.12.8,<0.13',
    'grain>=0.2.18,<0.3',
    'jax>=0.10.2,<0.13',
    'jaxtyping>=0.3.11',
    'matplotlib>=3.11',
    'ml_collections>=1.1',
    'msgpack>=1.2',
    'numpy>=2.4',
    'opencv-python-headless>=5.0',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'pillow>=12.1.1',
    'rich>=15',
    'safetensors>=0.8',
    'scipy>=1.17',
    'tensorboardX>=2.6.5',
  ],
  extras_require={
    # Records made on a cluster.
    'beam': ['apache-beam>=2.77,<3'],
    'dev': [
      'apache-beam>=2.77,<3',
      'beartype>=0.22',  # checks jaxtyping's annotations
      'chex>=0.1.92',
      'etils[epath-gcs]>=1.15',
      'gcp-storage-emulator>=2026.7',
      'playwright>=1.65',  # drives the Chromium that is installed
      'pytest>=9',
      'pytest-timeout>=2.4',
      'pytest-xdist>=3.8',
      'ruff>=0.17,<0.18',
      'tensorflow-datasets>=4.9.10',  # to write what is read without it
    ],
    # Work directories on Google Cloud Storage (gs://), without TensorFlow.
    'gcs': ['etils[epath-gcs]>=1.15'],
    # For jax2onnx, which itself needs `pip install --no-deps`: docs/export.md.
    'onnx': [
      'dm-pix>=0.4.5',
      'einops>=0.8',
      'equinox>=0.13.8',
      'onnx>=1.23',
      'onnx-ir>=1.1',
      'onnxruntime>=1.32',
    ],
    # The peers of `make bench`, which adds PyTorchVideo alone.
    'bench': ['fvcore>=0.1.5.post20221221', 'iopath>=0.1.10', 'torch==2.13.0'],
    # Reads PyTorch's weights.
    'torch': ['torch>=2.13'],
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]'],
  },
)
