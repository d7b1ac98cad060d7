"""Converted networks say what the PyTorch ones do.

On random weights and BN statistics, through the whole network.
"""

import sys
import types

import numpy as np
import pytest

from configs import base
from mtnet_jax.convert import conversion, families
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.leaves import leaf_paths
from tests.convert import tensor_names

torch = pytest.importorskip('torch')
from tests.convert import parity, torch_networks  # noqa: E402

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures('quick_compilation'),
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # torch's own
]
_WIDTHS = (8, 16, 16, 24)
_CLIP = {'data.num_frames': 4, 'data.input_size': 32}


def compare(
  network,
  name,
  family,
  tensors=None,
  bgr=False,
  clip=(4, 32),
  dtype=np.float32,
  **fields,
):
  """Holds both networks to each other, on two random clips."""
  frames, size = clip
  torch_networks.randomize(network)
  if dtype == np.float64:
    # Of an LSTM's two biases we keep the sum, in float32.
    for key, value in network.state_dict().items():
      if '.bias_hh_' in key:
        value.zero_()
  tensors = {
    key: value.numpy()
    for key, value in (tensors or network.state_dict()).items()
  }
  origin = families.recognize(tensors, '', family)
  assert origin.family == family and name in origin.models
  config = base.get_config()
  settings = families.settings(family, name, tensors)
  config.update_from_flattened_dict(
    settings
    | {'data.num_frames': frames, 'data.input_size': size}
    | {f'model.{key}': value for key, value in fields.items()}
  )
  model = model_lib.build_model(config, 7)
  shapes = leaf_paths(
    conversion.variable_shapes(model, (frames, size, size, 3))
  )
  converted = conversion.convert(
    tensors,
    {path: leaf.shape for path, leaf in shapes.items()},
    families.layout(family, name),
    bgr=bgr,
  )
  conversion.check(converted, 'a file', allow_mismatch=False)
  variables = conversion.complete(converted, model, config)
  bound = 1e-4 if dtype == np.float32 else 1e-9
  found = parity.model_difference(
    network,
    model,
    variables,
    clip,
    lambda clips: clips.flip(1) if bgr else clips,
    dtype,
  )
  assert found <= bound


@pytest.mark.parametrize(
  ('name', 'family'),
  [
    ('r3d_18', 'torchvision'),
    ('r2plus1d_18', 'torchvision'),
    ('srtg_r3d_18', 'srtg'),
    ('srtg_r2plus1d_50', 'srtg'),
    ('wide_r3d_50', 'srtg'),
  ],
)
def test_resnets(name, family):
  contained = family == 'srtg'
  network = torch_networks.VideoResNet(name, contained, 7, _WIDTHS)
  compare(network, name, family, stage_features=_WIDTHS)


def test_blue_first():
  network = torch_networks.VideoResNet('r3d_18', True, 7, _WIDTHS)
  compare(network, 'r3d_18', 'srtg', bgr=True, stage_features=_WIDTHS)


def test_x3d_of_pyslowfast():
  network = torch_networks.X3D(tensor_names.X3D_DEPTHS['x3d_s'], 7)
  compare(network, 'x3d_s', 'pyslowfast')


def test_layers_of_pytorchvideo():
  depths = tensor_names.X3D_DEPTHS['x3d_xs']
  network = torch_networks.X3D(depths, 7, norm_all_shortcuts=False)
  # Values are shared: they are drawn in `compare`.
  state = network.state_dict()
  named = zip(
    [name for name in tensor_names.pyslowfast('x3d_xs') if name in state],
    tensor_names.pytorchvideo('x3d_xs'),
    strict=True,
  )
  tensors = {theirs: state[ours] for ours, theirs in named}
  compare(network, 'x3d_xs', 'pytorchvideo', tensors)


def test_x3d_of_pytorchvideo_itself(monkeypatch):
  network = _create_x3d(monkeypatch)
  assert sorted(network.state_dict()) == sorted(
    tensor_names.pytorchvideo('x3d_xs')
  )
  compare(network, 'x3d_xs', 'pytorchvideo')


def _create_x3d(monkeypatch):
  """PyTorchVideo's own network."""
  pytest.importorskip('pytorchvideo')
  if 'torchvision' not in sys.modules:
    # For boxes, which X3D has not, it imports one name of torchvision.
    package, ops = (types.ModuleType(n) for n in ('torchvision', 'ops'))
    package.ops, ops.RoIAlign = ops, None
    monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setitem(sys.modules, 'torchvision.ops', ops)
  from pytorchvideo.models.x3d import create_x3d

  return create_x3d(
    input_clip_length=4,
    input_crop_size=32,
    model_num_class=7,
    head_activation=None,
  )


@pytest.mark.parametrize(
  ('name', 'family'),
  [
    *((name, 'pyslowfast') for name in tensor_names.X3D_DEPTHS),
    *((name, 'torchvision') for name in ('r3d_18', 'r2plus1d_18')),
    *((name, 'srtg') for name in ('r3d_101', 'srtg_r2plus1d_34')),
    ('srtg_wide_r3d_50', 'srtg'),
  ],
)
def test_tensors_of_full_width_fit(name, family):
  with torch.device('meta'):  # shapes without values
    if name in tensor_names.X3D_DEPTHS:
      network = torch_networks.X3D(tensor_names.X3D_DEPTHS[name])
    else:
      network = torch_networks.VideoResNet(name, family == 'srtg')
  state = network.state_dict()
  assert list(state) != [] and sorted(state) == sorted(
    tensor_names.of(name, family)
  )
  tensors = {key: np.broadcast_to(0.0, t.shape) for key, t in state.items()}
  config = base.get_config()
  settings = families.settings(family, name, tensors)
  config.update_from_flattened_dict(settings | _CLIP)
  model = model_lib.build_model(config, 400)
  shapes = leaf_paths(conversion.variable_shapes(model, (4, 32, 32, 3)))
  converted = conversion.convert(
    tensors,
    {path: leaf.shape for path, leaf in shapes.items()},
    families.layout(family, name),
  )
  conversion.check(converted, 'a file', allow_mismatch=False)
  assert converted.ignored == sum(name.endswith('/var') for name in shapes)
