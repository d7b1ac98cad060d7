"""Networks by name.

Example:
  model = models.build('mtnet_m', num_classes=400)
  variables = model.init(jax.random.key(0), clips)  # n t h w 3, normalised
  logits, endpoints = model.apply(variables, clips, train=False)
"""

import difflib
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.models import mtnet, resnet3d

NAMES = (*mtnet.VARIANTS, *resnet3d.VARIANTS)

_X3D_CLIPS = {
  'x3d_xs': (4, 160),
  'x3d_s': (13, 160),
  'x3d_m': (16, 224),
  'x3d_l': (16, 312),
}
_MTNET_CLIPS = {
  'mtnet_s': (13, 182),
  'mtnet_m': (16, 256),
  'mtnet_l': (16, 256),
}
# Frames, and height and width in pixels, of each network's usual clip.
DEFAULT_CLIPS: Mapping[str, tuple[int, int]] = types.MappingProxyType(
  {
    'mtnet_xs': (8, 48),
    **_MTNET_CLIPS,
    **_X3D_CLIPS,
    **dict.fromkeys(resnet3d.VARIANTS, (16, 224)),
  }
)


def build(name: str, num_classes: int, **overrides) -> nn.Module:
  """Returns a network.

  `model.apply(variables, clips, train=False)` returns `(logits, endpoints)`:
  float32 `(n, num_classes)`, and a dict with `stem`, `stage_1` … `stage_4`,
  `last`, `features`; `early_predictions`, the int32 class that Class
  Regularisation picks for each clip by stage; and `gate_open`, the share of
  open gates by block.

  Args:
    name: one of `NAMES`.
    num_classes: classes, at least 1.
    **overrides: fields of the network other than its variant's. All have
      `class_regularization`, `affection_rates`, `dropout`, `dtype`,
      `norm_batch_size`, `freeze_norm`, `input_mean`, `input_std`; MTNet, X3D
      and mt_r3d_50 also `local_ratio`, `pooling`, `shared_selection`; MTNet and
      X3D besides these `temporal_kernels`, `repeat_edges`, `recurrence`,
      `cell`, `gate`, `norm_all_shortcuts`; SRTG networks `placement`, `cell`,
      `gate`; all 3-D ResNets `stage_features`, `stem_frames`, `stem_pool`.

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
  allowed = _overrides(name)
  for key in overrides:
    if key not in allowed:
      raise UserError(
        f'{name} has no override {key!r}. It has '
        f'{", ".join(map(repr, allowed))}.'
      )
  _check_range('num_classes', num_classes, num_classes >= 1, 'at least 1')
  for key, (valid, allowed) in _RANGES.items():
    if key in overrides:
      _check_range(key, overrides[key], valid(overrides[key]), allowed)
  if 'affection_rates' in overrides and not overrides.get(
    'class_regularization'
  ):
    raise UserError(
      f'`affection_rates` (={overrides["affection_rates"]}) are those of Class '
      'Regularisation, which this network has not: set '
      'class_regularization=True, or leave them out.'
    )
  if 'dtype' in overrides:
    overrides['dtype'] = _float_dtype(overrides['dtype'])
  if name in mtnet.VARIANTS:
    return mtnet.MTNet(num_classes, **{**mtnet.VARIANTS[name], **overrides})
  return resnet3d.ResNet3D(
    num_classes, **{**resnet3d.VARIANTS[name], **overrides}
  )


def _overrides(name):
  common = (
    'class_regularization',
    'affection_rates',
    'dropout',
    'dtype',
    'norm_batch_size',
    'freeze_norm',
    'input_mean',
    'input_std',
    'rematerialize',
  )
  mtconv = ('local_ratio', 'pooling', 'shared_selection')
  if name in mtnet.VARIANTS:
    frames = ('temporal_kernels', 'repeat_edges')
    recurrence = ('recurrence', 'cell', 'gate')
    return (*common, *mtconv, *frames, *recurrence, 'norm_all_shortcuts')
  common += ('stage_features', 'stem_frames', 'stem_pool')
  if name.startswith('srtg_'):
    return (*common, 'placement', 'cell', 'gate')
  return (*common, *mtconv) if name.startswith('mt_') else common


def _is_color(value):
  """Whether these are numbers above 0, one of each channel."""
  return (
    isinstance(value, tuple)
    and len(value) == 3
    and all(isinstance(v, int | float) and v > 0 for v in value)
  )


_COLOR = (_is_color, 'three numbers above 0, in units of [0, 1] brightness')
# What an override may be, and the same in words.
_RANGES = types.MappingProxyType(
  {
    'dropout': (lambda rate: 0 <= rate < 1, 'in [0, 1)'),
    'norm_batch_size': (lambda size: size >= 0, '0 or more clips'),
    'stage_features': (
      lambda widths: (
        len(widths) == 4 and all(type(w) is int and w >= 1 for w in widths)
      ),
      'the channels of 4 stages, (64, 128, 256, 512) for instance',
    ),
    'stem_frames': (lambda frames: frames >= 1, 'at least 1'),
    'input_mean': _COLOR,
    'input_std': _COLOR,
  }
)


def _float_dtype(dtype):
  allowed = ('float32', 'bfloat16', 'float16', 'float64')
  try:
    dtype = jnp.dtype(dtype)
  except TypeError:
    pass  # A misspelled name; told below.
  _check_range('dtype', dtype, str(dtype) in allowed, f'one of {allowed}')
  if dtype == jnp.float64 and not jax.config.jax_enable_x64:
    raise UserError(
      '`dtype` (=float64) needs 64 bits: set JAX_ENABLE_X64=1, or choose '
      'float32.'
    )
  return dtype


def _check_range(name, value, valid, allowed):
  if not valid:
    raise UserError(f'`{name}` (={value}) must be {allowed}.')
