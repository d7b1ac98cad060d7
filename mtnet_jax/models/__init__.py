"""Which networks are there, by name?

Example:
  model = models.build('mtnet_m', num_classes=400)
  variables = model.init(jax.random.key(0), clips)  # n t h w 3, normalized
  logits, endpoints = model.apply(variables, clips, train=False)
"""

import difflib
import types
from collections.abc import Mapping

from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.models import (
  inception,
  mfnet,
  mtnet,
  residual,
  resnet3d,
  slowfast,
  video_resnet,
)
from mtnet_jax.models.network import (
  MTCONV_OPTIONS,
  RECURSION_OPTIONS,
  option_names,
)

# Networks of one form each.
_SINGLE = types.MappingProxyType(
  {'i3d_inception': inception.Inception, 'mfnet': mfnet.MFNet}
)
NAMES = (
  *mtnet.VARIANTS,
  *resnet3d.VARIANTS,
  *video_resnet.VARIANTS,
  *slowfast.VARIANTS,
  *_SINGLE,
)

_X3D_CLIPS = {
  'x3d_xs': (4, 160),
  'x3d_s': (13, 160),
  'x3d_m': (16, 224),
  'x3d_l': (16, 312),
  'x3d_xl': (16, 312),
}
_MTNET_CLIPS = {
  'mtnet_s': (13, 182),
  'mtnet_m': (16, 256),
  'mtnet_m_published': (16, 256),
  'mtnet_l': (16, 256),
}


def _clip(name: str) -> tuple[int, int]:
  if name.startswith(('hara', 'resnext')):
    return 16, 112
  if name in ('tanet_r50_16', 'ptv_r2plus1d_r50'):
    return 16, 224
  return 32 if 'csn' in name or name == 'i3d_r50_32x2' else 8, 224


# Frames, and height and width in pixels, of each network's usual clip.
DEFAULT_CLIPS: Mapping[str, tuple[int, int]] = types.MappingProxyType(
  {
    'mtnet_xs': (8, 48),
    **_MTNET_CLIPS,
    **_X3D_CLIPS,
    **dict.fromkeys(resnet3d.VARIANTS, (16, 224)),
    **dict.fromkeys(('mc3_18', 'hara_r3d_18', 'hara_r3d_34'), (16, 112)),
    'r2plus1d_34_ig65m': (32, 112),
    'r2plus1d_34_mmaction2': (8, 224),
    **{name: _clip(name) for name in video_resnet.VARIANTS},
    **dict.fromkeys(slowfast.VARIANTS, (32, 224)),
    'slowfast_r101_16x8': (64, 224),
    'i3d_inception': (64, 224),
    'mfnet': (16, 224),
  }
)


def build(name: str, num_classes: int, **overrides) -> nn.Module:
  """Returns a network.

  `model.apply(variables, clips, train=False)` returns `(logits, endpoints)`:
  float32 `(n, num_classes)`, and a dict with the activations `stem`, `stage_1`
  … `stage_4`, each as the next stage sees it, and `last`; `features`, the
  float32 mean of `last`; `early_predictions`, the int32 class that Class
  Regularisation picks for each clip by stage, and `early_scores`, its scores of
  all classes `(n, k)`; and `gate_open`, the share of
  open gates by block, without the blocks that have no gate or a single frame.

  Args:
    name: one of `NAMES`.
    num_classes: number of classes, at least 1.
    **overrides: options of the network other than its variant's. `Network` and
      the network's own class explain them; `override_names` says which ones a
      network has.

  Raises:
    UserError: an unknown name, an override that the network does not have, or
      a value that it cannot take.
  """
  if name not in NAMES:
    near = difflib.get_close_matches(name, NAMES, n=3)
    hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
    raise UserError(
      f'Unknown model (={name!r}).{hint} There are {", ".join(NAMES)}.'
    )
  allowed = override_names(name)
  for key in overrides:
    if key not in allowed:
      raise UserError(
        f'{name} has no override {key!r}. It has '
        f'{", ".join(map(repr, allowed))}.'
      )
  if 'affection_rates' in overrides and not overrides.get(
    'class_regularization'
  ):
    raise UserError(
      f'`affection_rates` (={overrides["affection_rates"]}) are those of Class '
      'Regularisation, which this network lacks: set '
      'class_regularization=True, or leave them out.'
    )
  network, row = _find(name)
  if network is video_resnet.VideoResNet:
    _check_parts(name, overrides)
  return network(num_classes, **{**row, **overrides})


def _check_parts(name, overrides):
  """Refuses options of parts that a network of `VideoResNet` does not get."""
  for keys, part, there, how in (
    (
      RECURSION_OPTIONS,
      'SRTG',
      overrides.get('placement'),
      f'placement to one of {residual.BOTTLENECK_PLACEMENTS}',
    ),
    (
      MTCONV_OPTIONS,
      'MTConv',
      overrides.get('middle') == 'mtconv',
      "middle='mtconv'",
    ),
  ):
    for key in sorted(keys & overrides.keys()):
      if not there:
        raise UserError(
          f'`{key}` (={overrides[key]}) is an option of {part}, which {name} '
          f'lacks: set {how}, or leave it out.'
        )


def _find(name):
  """A network's class, and the fields that its row has."""
  if name in mtnet.VARIANTS:
    return mtnet.MTNet, mtnet.VARIANTS[name]
  if name in resnet3d.VARIANTS:
    return resnet3d.ResNet3D, resnet3d.VARIANTS[name]
  if name in slowfast.VARIANTS:
    return slowfast.SlowFast, slowfast.VARIANTS[name]
  if name in _SINGLE:
    return _SINGLE[name], {}
  return video_resnet.VideoResNet, {'pathway': video_resnet.VARIANTS[name]}


def override_names(name: str) -> tuple[str, ...]:
  """Returns the overrides that `build` takes for a network.

  Args:
    name: one of `NAMES`.
  """
  network, row = _find(name)
  unread = frozenset()
  if network is resnet3d.ResNet3D:
    unread = resnet3d.unread_options(row)
  elif network not in (mtnet.MTNet, video_resnet.VideoResNet):
    unread = MTCONV_OPTIONS | RECURSION_OPTIONS
  return tuple(n for n in option_names(network) if n not in unread)
