"""Holds PyTorch's modules to the networks that they are converted to.

Only tests that have found PyTorch import this file.
"""

import jax
import numpy as np
import torch

from configs import base
from mtnet_jax.convert import conversion, families, published
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.leaves import leaf_paths
from tests.convert import torch_networks

CLASSES = 7


def compare(network, row, clip, feed=lambda clips: clips, dtype=np.float32):
  """Holds a module to the network that its state dict is converted to.

  Arguments as `difference`'s.
  """
  bound = 1e-5 if dtype == np.float32 else 1e-9
  assert difference(network, row, clip, feed, dtype) <= bound


def difference(network, row, clip, feed=lambda clips: clips, dtype=np.float32):
  """Returns how far a module is from the network that it is converted to.

  The largest difference of logits over the largest logit, at random weights.

  Args:
    network: the module.
    row: name of published weights of its kind.
    clip: frames, and pixels of a side.
    feed: makes of clips `(n, 3, t, h, w)` what the module takes.
    dtype: the dtype of the computation.
  """
  torch_networks.randomize(network)
  state = network.state_dict()
  tensors = {name: value.numpy() for name, value in state.items()}
  family = next(r.family for r in published.rows() if r.name == row)
  name = published.network_of(row)
  origin = families.recognize(tensors, '')
  assert (origin.family, origin.models) == (family, (name,))
  config = base.get_config()
  config.update_from_flattened_dict(families.settings(family, row, tensors))
  config.data.num_frames, config.data.input_size = frames, size = clip
  model = model_lib.build_model(config, CLASSES)
  shapes = model_lib.variable_shapes(model, (frames, size, size, 3))
  converted = conversion.convert(
    tensors,
    {path: leaf.shape for path, leaf in leaf_paths(shapes).items()},
    families.layout(family, name),
  )
  conversion.check(converted, 'a file', allow_mismatch=False)
  variables = conversion.complete(converted, model, config)
  return model_difference(network, model, variables, clip, feed, dtype)


def model_difference(
  network, model, variables, clip, feed=lambda clips: clips, dtype=np.float32
):
  """Returns how far a module is from a network, on two random clips.

  Args:
    network: the module, in evaluation.
    model: ours.
    variables: the model's.
    clip: frames, and pixels of a side.
    feed: makes of clips `(n, 3, t, h, w)` what the module takes.
    dtype: the dtype of the computation.
  """
  frames, size = clip
  clips = np.random.default_rng(1).normal(size=(2, frames, size, size, 3))
  clips[1] *= 0.5  # large ones of one kind would look alike to a network
  clips = clips.astype(dtype)

  def apply(variables, clips):
    return model.clone(dtype=dtype).apply(variables, clips, train=False)[0]

  with jax.enable_x64(dtype == np.float64):
    variables = jax.tree.map(lambda a: np.asarray(a, dtype), variables)
    got = np.asarray(jax.jit(apply)(variables, clips))
  clips = torch.from_numpy(clips)
  with torch.no_grad():
    wanted = network.to(clips.dtype)(feed(clips.permute(0, 4, 1, 2, 3)))
  wanted = wanted.numpy()
  assert np.abs(wanted[0] - wanted[1]).max() > 0.01 * np.abs(wanted).max()
  return np.abs(got - wanted).max() / np.abs(wanted).max()
