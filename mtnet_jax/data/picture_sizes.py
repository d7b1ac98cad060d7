"""Limits the sizes of pictures, and computes what they are resized to."""

MAX_PIXELS = 2**26  # 8192 × 8192: more than any camera's video
_MAX_RATIO = 32


def check(width: int, height: int) -> None:
  """Raises a ValueError where pictures have more pixels than are decoded."""
  if width * height > MAX_PIXELS:
    raise ValueError(
      f'its pictures have {width} × {height} pixels; at most {MAX_PIXELS:,} '
      'are decoded: encode it anew, smaller'
    )


def resized(width: int, height: int, short_side: int | None) -> tuple[int, int]:
  """Returns width and height with the shorter side of that length.

  Args:
    width: the width in pixels.
    height: the height in pixels.
    short_side: the new shorter side in pixels; None: no change.

  Raises:
    ValueError: a side is more than 32 times the other, so that few pixels
      would become very many.
  """
  if short_side is None:
    return width, height
  if max(width, height) > _MAX_RATIO * min(width, height):
    raise ValueError(
      f'its pictures have {width} × {height} pixels; no side may have more '
      f'than {_MAX_RATIO} times those of the other'
    )
  scale = short_side / min(width, height)
  return round(scale * width), round(scale * height)
