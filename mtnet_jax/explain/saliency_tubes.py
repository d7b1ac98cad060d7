"""Saliency Tubes: where and when the evidence for a class lies.

Source: thesis, section 7.4, Fig. 7.4.
"""

import functools

import numpy as np
from scipy import ndimage

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Float

Shape = tuple[int, int, int]


def saliency_tube(
  activations: Float[Array, 't h w c'],
  class_weights: Float[Array, ' c'],
  shape: Shape | None = None,
  threshold: float = 0.0,
) -> Float[np.ndarray, 't2 h2 w2']:
  """Returns the Saliency Tube of a class.

  Each channel `a_j` is weighted by the class, `f_j = y_j a_j`, and normalized
  to [0, 1] by its least and greatest value, `z_j`; the tube is `Σ_j z_j²`,
  normalized in the same way. Constants become 0.

  Args:
    activations: a, of one clip, any float dtype.
    class_weights: y, the class's row, as `class_rows.class_row` gives it.
    shape: frames, rows and columns to interpolate to; None: as `activations`.
    threshold: τ in [0, 1]: channels whose greatest `|f_j|`, relative to that of
      all channels, is below are left out.

  Returns:
    float32 in [0, 1].

  Raises:
    UserError: activations or weights are not finite, or the threshold is out of
      range.
  """
  if not 0 <= threshold <= 1:
    raise UserError(f'`threshold` (={threshold}) must lie in [0, 1].')
  weighted = _finite(activations, 'activations') * _finite(
    class_weights, 'class weights'
  ).reshape(1, 1, 1, -1)
  peaks = np.abs(weighted).max(axis=(0, 1, 2))
  weighted = weighted[..., peaks >= threshold * peaks.max()]
  z = stretch(weighted, axis=(0, 1, 2))
  return interpolate(stretch(np.einsum('thwc,thwc->thw', z, z)), shape)


def stretch(
  x: Float[Array, '*d'], axis: tuple[int, ...] | None = None
) -> Float[np.ndarray, '*d']:
  """Returns x brought to [0, 1] by its least and greatest value.

  Args:
    x: finite numbers.
    axis: over which the two are taken; None: all. Where they are equal the
      result is 0.
  """
  least = x.min(axis=axis, keepdims=True)
  span = x.max(axis=axis, keepdims=True) - least
  return (x - least) / np.where(span > 0, span, 1)


def interpolate(
  saliency: Float[Array, 't h w'], shape: Shape | None
) -> Float[np.ndarray, 't2 h2 w2']:
  """Returns saliency at another resolution, float32, clipped to [0, 1].

  It uses third-order splines whose first and last samples stay at the corners,
  as in `scipy.ndimage.zoom`. The result is clipped because cubic splines
  overshoot.

  Args:
    saliency: the saliency, in [0, 1].
    shape: frames, rows, columns; None: as they are.
  """
  for axis, size in enumerate(shape or ()):
    if size != saliency.shape[axis]:
      matrix = _spline_matrix(saliency.shape[axis], size)
      along = np.tensordot(matrix, saliency, (1, axis))
      saliency = np.moveaxis(along, 0, axis)
  return np.clip(saliency, 0, 1).astype(np.float32)


@functools.lru_cache
def _spline_matrix(old: int, new: int) -> np.ndarray:
  """Returns the matrix `(new, old)` that interpolates one axis.

  Interpolation is linear in the samples. By matrices it is tens of times as
  fast as `zoom` of the whole, with the same result. `mirror` is the border that
  zoom's splines have anyway; its default mode besides sets the last sample to
  zero for some sizes, 16 to 160 among them, where rounding takes it out of the
  range.
  """
  return ndimage.zoom(np.eye(old), (new / old, 1), order=3, mode='mirror')


def _finite(x: np.ndarray, what: str) -> np.ndarray:
  x = np.asarray(x, np.float32)
  if not np.isfinite(x).all():
    raise UserError(
      f'The {what} hold NaN or infinity, so that nothing can be explained. The '
      'network diverged in training, or its checkpoint is damaged: take an '
      'earlier one.'
    )
  return x
