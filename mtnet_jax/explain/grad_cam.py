"""Grad-CAM in space and time, the method to compare with.

Source: R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization*, 2017, equations 1 and 2; the means run over
frames too.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.explain.saliency_tubes import Shape, interpolate, stretch
from mtnet_jax.ops import precision
from mtnet_jax.typing import Array, Float

LAYERS = ('stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4', 'last')


def grad_cams(
  model: nn.Module,
  variables: dict,
  clip: Float[Array, 't h w c'],
  label: int,
  layers: Sequence[str] = LAYERS,
  shape: Shape | None = None,
) -> dict[str, Float[np.ndarray, 't2 h2 w2']]:
  """Returns the Grad-CAM of a class in several layers, in one backward pass.

  A channel's weight is the mean, over frames, rows and columns, of the logit's
  gradient with respect to it. The channels' weighted sum, where it is positive,
  is brought to [0, 1]. The gradient is the one that trains the network: that of
  SoftPool is defined by the thesis (Fig. 5.3), not the derivative.

  Args:
    model: a network from `mtnet_jax.models.build`.
    variables: the model's.
    clip: normalized pixels, in the network's dtype.
    label: the class, 0 to k - 1.
    layers: names of `LAYERS`.
    shape: frames, rows and columns of the result; None: of the layer.

  Returns:
    By layer, float32 in [0, 1]; 0 where nothing speaks for the class.

  Raises:
    UserError: an unknown layer or class, or numbers that are not finite.
  """
  for layer in layers:
    if layer not in LAYERS:
      raise UserError(
        f'There is no layer {layer!r}. Choose among {", ".join(LAYERS)}.'
      )
  if not 0 <= label < model.num_classes:
    raise UserError(
      f'`label` (={label}) must be one of the {model.num_classes} classes, '
      'counted from 0.'
    )
  maps = jax.device_get(
    _weighted_sums(model, tuple(layers), variables, clip[None], label)
  )
  for layer, a in maps.items():
    if not np.isfinite(a).all():
      raise UserError(
        f'The gradients at {layer} hold NaN or infinity: the weights are '
        'damaged, or the network diverged in training. Take another checkpoint.'
      )
  return {
    layer: interpolate(stretch(np.maximum(maps[layer], 0)), shape)
    for layer in layers
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _weighted_sums(model, layers, variables, clips, label):
  """Returns `Σ_c weight_c a_c` of one clip, float32 `(t, h, w)` by layer."""
  readers = {layer: _reader(layer, variables['params']) for layer in layers}

  # The sum over positions of a channel's gradient is the gradient of an offset
  # that is added to the whole channel, where the layer is read.
  def logit(offsets):
    def add(run, args, kwargs, context):
      path = '/'.join(context.module.path)
      if context.method_name == '__call__' and path in offsets:
        x = args[0]
        offset = offsets[path].astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1)
        args = (x + offset, *args[1:])
      return run(*args, **kwargs)

    with nn.intercept_methods(add):
      logits, endpoints = model.apply(variables, clips, train=False)
    return logits[0, label], endpoints

  shapes = jax.eval_shape(model.apply, variables, clips)[1]
  offsets = {
    reader: jnp.zeros(shapes[layer].shape[-1], jnp.float32)
    for layer, reader in readers.items()
  }
  gradients, endpoints = jax.grad(logit, has_aux=True)(offsets)
  sums = {}
  for layer, reader in readers.items():
    a = precision.widen(endpoints[layer][0])  # t h w c
    sums[layer] = a @ (gradients[reader] / math.prod(a.shape[:3]))
  return sums


def _reader(layer, params):
  """Returns the module whose input is the layer, or the layer's mean."""
  if layer == 'last':
    candidates = ('linear', 'classifier')
  else:
    stage = 0 if layer == 'stem' else int(layer.removeprefix('stage_'))
    candidates = (f'stage_{stage + 1}_block_1', 'head', 'linear', 'classifier')
  return next(name for name in candidates if name in params)
