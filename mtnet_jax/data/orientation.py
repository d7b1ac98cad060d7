"""Turns and mirrors stored pictures as players do before they show them.

Phones and editors store pictures as the sensor has them, with a matrix that
says how they are to be shown: the pixel (x, y) goes to (a x + c y, b x + d y),
where x points to the right and y down.
"""

import dataclasses
import math

import av
import numpy as np

_ODD_ANGLE = 0.5  # degrees from a right angle: what FFmpeg rounds away


@dataclasses.dataclass(frozen=True)
class Orientation:
  """Operations on a stored picture, in this order.

  Attributes:
    transposed: whether rows become columns.
    left_right: whether the picture is then mirrored from left to right.
    upside_down: whether it is then mirrored from top to bottom.
  """

  transposed: bool = False
  left_right: bool = False
  upside_down: bool = False

  @property
  def rotation(self) -> int:
    """Degrees counterclockwise, 0 to 270, of the turn that is in it.

    A picture that is mirrored as well has its left and right changed before.
    """
    if self.transposed:
      return 270 if self.left_right else 90
    return 180 if self.upside_down else 0

  def apply(self, image: np.ndarray) -> np.ndarray:
    """Returns a view of (h, w, …), or of (w, h, …) where it is transposed."""
    if self.transposed:
      image = image.swapaxes(0, 1)
    down = -1 if self.upside_down else 1
    across = -1 if self.left_right else 1
    return image[::down, ::across]


_AS_STORED = Orientation()


def read(frame: av.VideoFrame) -> Orientation:
  """Returns how a decoded frame is to be shown, as FFmpeg's players do it.

  Args:
    frame: the frame, with its display matrix, if there is one.

  Raises:
    ValueError: the matrix turns by something else than a multiple of 90
      degrees.
  """
  data = frame.side_data.get('DISPLAYMATRIX')
  return _AS_STORED if data is None else from_matrix(bytes(data))


def from_matrix(data: bytes) -> Orientation:
  """Returns what a display matrix asks for.

  As in FFmpeg, the first two numbers of each row count, lengths do not, and a
  matrix with a column of zeros is none.

  Args:
    data: nine int32 in the machine's byte order, the rows (a b u), (c d v) and
      (x y w).

  Raises:
    ValueError: it turns by something else than a multiple of 90 degrees.
  """
  a, b, _, c, d = np.frombuffer(data, np.int32, 5).tolist()
  lengths = math.hypot(a, c), math.hypot(b, d)
  if not all(lengths):
    return _AS_STORED
  degrees = math.degrees(math.atan2(b / lengths[1], a / lengths[0])) % 360
  quarter = round(degrees / 90) % 4
  if abs((degrees - 90 * quarter + 180) % 360 - 180) > _ODD_ANGLE:
    raise ValueError(
      f'its display matrix turns pictures by {degrees:.0f} degrees; allowed '
      'are multiples of 90: encode it anew, upright'
    )
  if quarter % 2:
    return Orientation(True, c < 0, b < 0)
  return Orientation(False, a < 0, d < 0)
