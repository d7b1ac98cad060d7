"""Lays saliency over a clip: as arrays, MP4, GIF and a strip of frames."""

import contextlib
import errno
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction

import av
import cv2
import matplotlib
import matplotlib.figure
import numpy as np
import PIL.Image  # matplotlib brings it

from mtnet_jax import files
from mtnet_jax.errors import UserError, printable
from mtnet_jax.typing import Float, Real, UInt8

_LARGE = 256  # pixels: smaller frames are magnified, by whole numbers, up to it
# Frames are magnified smoothly: edges of large pixels would hide the content.
_MAGNIFIES = cv2.INTER_CUBIC
_SLOWEST = 4.0  # frames a second: below, a clip is a row of pictures
_SHORTEST = 4.0  # seconds: shorter clips are repeated

# A strip, in pixels.
_CELL = 192  # a frame's width
_PER_ROW, _MOST_FRAMES = 8, 16
_GAP, _MARGIN, _LINE = 4, 16, 20
_DPI = 100


def colors() -> UInt8[np.ndarray, '256 3']:
  """Returns the colors of saliency 0 to 1, in perceptually even steps.

  Lightness rises all the way, so they are told apart by the color-blind and in
  print.
  """
  rgb = matplotlib.colormaps['inferno'](np.arange(256))[:, :3]
  return np.round(255 * rgb).astype(np.uint8)


def blend(
  clip: UInt8[np.ndarray, 't h w 3'],
  saliency: Float[np.ndarray, 't h w'],
  strength: float = 0.5,
) -> UInt8[np.ndarray, 't h2 w2 3']:
  """Colors a clip where it is salient; elsewhere it stays as it is.

  Args:
    clip: the frames.
    saliency: the saliency in [0, 1]; times `strength` it is the opacity of its
      color.
    strength: the strength of the colors, from 0 (none) to 1 (they alone are
      seen where the saliency is 1).

  Raises:
    UserError: `strength` is outside [0, 1].
  """
  assert saliency.shape == clip.shape[:3], (saliency.shape, clip.shape)
  if not 0 <= strength <= 1:
    raise UserError(
      f'The strength of an overlay is {strength}; give a number from 0 to 1.'
    )
  color = colors()[np.round(255 * saliency).astype(np.uint8)]
  opacity = strength * saliency[..., None]
  return np.round(clip + opacity * (color - clip.astype(np.float32))).astype(
    np.uint8
  )


def frame_rate(seconds: Real[np.ndarray, ' t']) -> float:
  """Returns the frames per second at which a clip is shown, at least 4.

  Args:
    seconds: the frames' times in the video.
  """
  span = float(np.max(seconds) - np.min(seconds))
  if span <= 0:
    return _SLOWEST
  return max((len(seconds) - 1) / span, _SLOWEST)


def write_mp4(
  frames: UInt8[np.ndarray, 't h w 3'],
  seconds: Real[np.ndarray, ' t'],
  path: str | pathlib.Path,
) -> None:
  """Writes frames as H.264, which every browser and phone plays.

  They play at their own rate, at least 4 a second, over and over for at least
  4 seconds. Small frames are magnified. A last row or column is repeated where
  their number is odd: colors are stored for every second pixel.

  Args:
    frames: the frames from `blend`.
    seconds: the frames' times in the video.
    path: the MP4 to write.

  Raises:
    UserError: the file cannot be written.
  """
  rate = frame_rate(seconds)
  frames = _magnify(frames)
  _, height, width, _ = frames.shape
  odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
  frames = np.pad(frames, odd, mode='edge')
  times = int(np.ceil(round(_SHORTEST * rate / len(frames), 3)))
  with writing(path), av.open(str(path), 'w', format='mp4') as container:
    stream = container.add_stream(
      'libx264',
      Fraction(rate).limit_denominator(1000),
      options={'crf': '18', 'threads': '1'},
    )
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    for _ in range(times):
      for frame in frames:
        picture = av.VideoFrame.from_ndarray(frame, format='rgb24')
        container.mux(stream.encode(picture))
    container.mux(stream.encode())


def write_gif(
  frames: UInt8[np.ndarray, 't h w 3'],
  seconds: Real[np.ndarray, ' t'],
  path: str | pathlib.Path,
) -> None:
  """Writes frames as a GIF that repeats for ever.

  They play at their own rate, from 4 to 50 a second. Small frames are
  magnified. All share one palette, so that colors do not flicker.

  Args:
    frames: the frames from `blend`.
    seconds: the frames' times in the video.
    path: the GIF to write.

  Raises:
    UserError: the file cannot be written.
  """
  # A GIF counts in 10 ms, and browsers slow down frames below 20 ms.
  milliseconds = max(10 * round(100 / frame_rate(seconds)), 20)
  frames = _magnify(frames)
  _, _, width, _ = frames.shape
  palette = PIL.Image.fromarray(frames.reshape(-1, width, 3)).quantize(256)
  # There is no dithering, since dots of other colors would look like saliency.
  images = [
    PIL.Image.fromarray(frame).quantize(
      palette=palette, dither=PIL.Image.Dither.NONE
    )
    for frame in frames
  ]
  with writing(path):
    images[0].save(
      path,
      format='gif',
      save_all=True,
      append_images=images[1:],
      duration=milliseconds,
      loop=0,
    )


def write_strip(
  clip: UInt8[np.ndarray, 't h w 3'],
  overlaid: Mapping[str, UInt8[np.ndarray, 't h w 3']],
  seconds: Real[np.ndarray, ' t'],
  path: str | pathlib.Path,
  title: str = '',
) -> None:
  """Draws frames over time, each above its overlays, as a PNG.

  Args:
    clip: the plain frames. Of more than 16, 16 spread evenly are drawn.
    overlaid: the same from `blend`, by the words above them.
    seconds: the frames' times in the video, written above them.
    path: the PNG to write.
    title: one line above all.

  Raises:
    UserError: the file cannot be written.
  """
  chosen = np.linspace(0, len(clip) - 1, min(len(clip), _MOST_FRAMES))
  chosen = np.round(chosen).astype(int)
  _, h, w, _ = clip.shape
  cell = max(round(_CELL * h / w), 1)  # rows of a frame
  across = min(len(chosen), _PER_ROW)
  row = _LINE + cell + _GAP  # words and pictures
  band = row * (1 + len(overlaid)) + _GAP
  top = _MARGIN + (_LINE + _GAP if title else 0)
  height = top + band * -(-len(chosen) // across) + _MARGIN
  width = 2 * _MARGIN + across * (_CELL + _GAP) - _GAP
  picture = np.full((height, width, 3), 255, np.uint8)
  labels = []
  for place, index in enumerate(chosen):
    x = _MARGIN + place % across * (_CELL + _GAP)
    y = top + place // across * band
    rows = {f'{seconds[index]:.2f} s': clip} | overlaid
    for words, frames in rows.items():
      if frames is clip or place % across == 0:
        labels.append((x, y, words))
      first = y + _LINE
      picture[first : first + cell, x : x + _CELL] = _fit(frames[index], cell)
      y += row
  _save_labeled(picture, labels, title, path)


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
  """Makes the folder of a file that is about to be written.

  Args:
    path: the file to write.

  Raises:
    UserError: the folder cannot be made, or what is done within the context
      cannot write to it. A full disk keeps its own error.
  """
  path = pathlib.Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield
  except OSError as error:
    if error.errno in files.NO_ROOM:
      raise
    # "File exists" would not help if the folder's name is that of a file.
    is_file = isinstance(error, FileExistsError)
    code = errno.ENOTDIR if is_file else error.errno
    cause = os.strerror(code) if code else error
    raise UserError(
      f'{path} cannot be written ({cause}). Name a folder that you may write '
      'to.'
    ) from error


def save_figure(
  figure: matplotlib.figure.Figure, path: str | pathlib.Path, dpi: float
) -> None:
  """Writes a figure as PNG; letters that the font lacks become boxes.

  Raises:
    UserError: the file cannot be written.
  """
  with writing(path), warnings.catch_warnings():
    # Users cannot change the font, so its warnings are not shown.
    warnings.filterwarnings('ignore', 'Glyph .* missing', UserWarning)
    warnings.filterwarnings('ignore', 'Matplotlib currently', UserWarning)
    figure.savefig(path, format='png', dpi=dpi)


def _magnify(frames: np.ndarray) -> np.ndarray:
  _, height, width, _ = frames.shape
  factor = max(1, _LARGE // max(height, width))
  size = factor * width, factor * height
  return np.stack(
    [cv2.resize(frame, size, interpolation=_MAGNIFIES) for frame in frames]
  )


def _fit(image: np.ndarray, height: int) -> np.ndarray:
  """Returns a frame as wide as a strip's cell."""
  shrinks = image.shape[1] > _CELL
  method = cv2.INTER_AREA if shrinks else _MAGNIFIES
  return cv2.resize(image, (_CELL, height), interpolation=method)


def _save_labeled(
  picture: np.ndarray,
  labels: list[tuple[int, int, str]],
  title: str,
  path: str | pathlib.Path,
) -> None:
  height, width, _ = picture.shape
  figure = matplotlib.figure.Figure((width / _DPI, height / _DPI), dpi=_DPI)
  figure.figimage(picture)
  # A name may hold a dollar sign, and is no formula.
  style = {'va': 'top', 'parse_math': False}
  figure.text(
    _MARGIN / width,
    1 - _MARGIN / height,
    printable(title),
    fontsize=11,
    **style,
  )
  for x, y, label in labels:
    place = x / width, 1 - y / height
    figure.text(*place, printable(label), fontsize=9, color='0.3', **style)
  save_figure(figure, path, _DPI)
