"""Decodes pictures to pixels, within the limits that videos have."""

import io
import warnings

import cv2
import numpy as np
import PIL.Image
from jaxtyping import UInt8

from mtnet_jax.data import picture_sizes

_FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
# The reason for pictures that are refused here, as a sentence.
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)


def decode(contents: bytes) -> UInt8[np.ndarray, 'h w 3']:
  """Decodes a picture: RGB, turned as its own tag asks.

  Args:
    contents: a BMP, JPEG, PNG, PPM, TIFF or WebP file.

  Raises:
    ValueError: it is none, damaged, or too large.
  """
  try:  # its size alone
    with PIL.Image.open(io.BytesIO(contents), formats=_FORMATS) as picture:
      width, height = picture.size
  except PIL.Image.DecompressionBombError as error:
    raise ValueError(
      f'it has more than the {picture_sizes.MAX_PIXELS:,} pixels that are '
      'decoded'
    ) from error
  except Exception as error:  # whatever the library says of a damaged file
    raise ValueError('it is no picture, or a damaged one') from error
  picture_sizes.check(width, height)
  try:
    image = cv2.imdecode(
      np.frombuffer(contents, np.uint8), cv2.IMREAD_COLOR_RGB
    )
  except cv2.error as error:
    raise ValueError('it is a damaged picture') from error
  if image is None:
    raise ValueError('it is a damaged picture')
  return image


def resize(
  image: UInt8[np.ndarray, 'h w 3'], short_side: int | None
) -> UInt8[np.ndarray, 'height width 3']:
  """Resizes a picture so that its shorter side has a length.

  Args:
    image: the picture.
    short_side: the new shorter side in pixels; None: no change.

  Returns:
    The picture: bilinear, or of less size the mean over what a pixel covers.

  Raises:
    ValueError: a side is more than 32 times the other.
  """
  height, width = image.shape[:2]
  size = picture_sizes.resized(width, height, short_side)
  if size == (width, height):
    return image
  smaller = size[0] < width
  how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
  return cv2.resize(image, size, interpolation=how)
