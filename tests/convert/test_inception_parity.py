"""I3D and MF-Net say what PyTorch's modules do, and traps say other things."""

import pytest

torch = pytest.importorskip('torch')

from configs import base  # noqa: E402
from mtnet_jax.convert import families, published, torch_weights  # noqa: E402
from mtnet_jax.errors import UserError  # noqa: E402
from tests.convert import torch_inception, torch_networks  # noqa: E402
from tests.convert.parity import CLASSES, compare, difference  # noqa: E402

pytestmark = [
  pytest.mark.usefixtures('quick_compilation'),
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # torch's own
]
_I3D = 'i3d_inception_imagenet_pytorch_i3d'
_MFNET = 'mfnet_kinetics400_mfnet'


def _build(row):
  if row == _I3D:
    return torch_inception.I3D(CLASSES)
  return torch_inception.MFNet(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('row', 'clip'),
  [
    (_I3D, (16, 64)),
    (_MFNET, (8, 64)),
    # Of odd sizes, SAME padding is another one at every stride.
    pytest.param(_I3D, (23, 75), marks=pytest.mark.check),
    pytest.param(_MFNET, (9, 75), marks=pytest.mark.check),
  ],
)
def test_networks_written_from_facts(row, clip):
  compare(_build(row), row, clip)


@pytest.mark.slow
def test_symmetric_padding_is_a_trap():
  network = torch_inception.I3D(CLASSES, same=False)
  assert difference(network, _I3D, (16, 64)) > 0.01


@pytest.mark.slow
def test_another_epsilon_is_a_trap():
  network = _build(_I3D)
  for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm3d):
      module.eps = 1e-5
  assert difference(network, _I3D, (16, 64)) > 1e-3


@pytest.mark.check
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('row', [_I3D, _MFNET])
def test_whole_clips(row):
  """Of as many frames and pixels as the authors train on."""
  settings = next(r.settings for r in published.rows() if r.name == row)
  clip = settings['data.num_frames'], settings['data.input_size']
  compare(_build(row), row, clip)


def test_numbers_of_parameters():
  networks = torch_inception.I3D(400), torch_inception.MFNet(400)
  counts = [sum(p.numel() for p in n.parameters()) for n in networks]
  assert counts == [12_697_264, 7_996_368]


@pytest.mark.slow
@pytest.mark.parametrize('row', [_I3D, _MFNET])
def test_files_become_runs(row, tmp_path):
  """As they are saved: bare; and under a key, as DataParallel names tensors."""
  network = torch_networks.randomize(_build(row))
  state = network.state_dict()
  if row == _MFNET:
    named = {f'module.{name}': value for name, value in state.items()}
    state = {'epoch': 3, 'state_dict': named}
  file, out = tmp_path / 'model.pt', tmp_path / 'out'
  torch.save(state, file)
  config = base.get_config()
  name = published.network_of(row)
  result = torch_weights.convert(file, name, config, out)
  assert not (result.missing or result.unused or result.misshapen)
  assert config.model.name == name
  if row == _I3D:
    assert config.model.input_mean == config.model.input_std == (0.5,) * 3
    assert config.model.norm_epsilon == 1e-3
    assert (config.data.num_frames, config.data.frame_stride) == (64, 1)
    assert (config.data.short_side, config.data.crop_size) == (256, 224)
  else:
    # The authors' 0 to 255, less 124, 117 and 104, times 0.0167.
    pixel = (200 / 255 - config.model.input_mean[2]) / config.model.input_std[2]
    assert abs(pixel - (200 - 104) * 0.0167) < 1e-5
  assert (out / 'checkpoints').is_dir()


def test_optical_flow_is_refused(tmp_path):
  file = tmp_path / 'flow_imagenet.pt'
  torch.save(torch_inception.I3D(4, channels=2).state_dict(), file)
  with pytest.raises(
    UserError, match=r'two channels, the optical flow.*rgb_im'
  ):
    torch_weights.convert(
      file, 'i3d_inception', base.get_config(), tmp_path / 'out'
    )
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('classes', [157, 400])
def test_charades_has_other_classes(classes):
  row = published.find('i3d_inception', 'pytorch_i3d', 'mine.pt', classes)
  data = {157: 'charades', 400: 'kinetics400'}[classes]
  assert (row.data, row.classes) == (data, classes)
  assert families.layout('pytorch_i3d', 'mfnet') is None
