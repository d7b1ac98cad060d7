"""Which networks are there, by name?

Example:
  model = models.build('mtnet_m', num_classes=400)
  variables = model.init(jax.random.key(0), clips)  # n t h w 3, normalised
  logits, endpoints = model.apply(variables, clips, train=False)
"""

import difflib
import types
from collections.abc import Mapping

from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.models import mtnet, resnet3d
from mtnet_jax.models.network import option_names

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
  float32 `(n, num_classes)`, and a dict with the activations `stem`, `stage_1`
  … `stage_4`, each as the next stage sees it, and `last`; `features`, the
  float32 mean of `last`; `early_predictions`, the int32 class that Class
  Regularisation picks for each clip by stage; and `gate_open`, the share of
  open gates by block, without the blocks that have no gate or a single frame.

  Args:
    name: one of `NAMES`.
    num_classes: number of classes, at least 1.
    **overrides: options of the network other than its variant's. The classes
      `Network`, `MTNet` and `ResNet3D` explain them; `override_names` says
      which ones a network has.

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
      'Regularisation, which this network has not: set '
      'class_regularization=True, or leave them out.'
    )
  if name in mtnet.VARIANTS:
    return mtnet.MTNet(num_classes, **{**mtnet.VARIANTS[name], **overrides})
  return resnet3d.ResNet3D(
    num_classes, **{**resnet3d.VARIANTS[name], **overrides}
  )


def override_names(name: str) -> tuple[str, ...]:
  """Returns the overrides that `build` takes for a network.

  Args:
    name: one of `NAMES`.
  """
  if name in mtnet.VARIANTS:
    return option_names(mtnet.MTNet)
  unread = resnet3d.unread_options(resnet3d.VARIANTS[name])
  return tuple(n for n in option_names(resnet3d.ResNet3D) if n not in unread)
