"""A picture of what was made: a row a class, time from left to right."""

import pathlib
from collections.abc import Mapping, Sequence

import av
import cv2
import numpy as np

_HEIGHT = 96  # of a frame on the sheet, in pixels
_WIDTH = 134  # wider frames do not occur
_BANNER = 14


def draw(
  rows: Mapping[str, Sequence[pathlib.Path]], columns: int
) -> np.ndarray:
  """Draws the sheet.

  Args:
    rows: under each title the videos that stand side by side.
    columns: frames of each video, evenly spaced from its first to its last.

  Returns:
    (h, w, 3) uint8 RGB.
  """
  return np.concatenate([_row(*row, columns) for row in rows.items()])


def _row(
  title: str, videos: Sequence[pathlib.Path], columns: int
) -> np.ndarray:
  strip = np.concatenate([_strip(video, columns) for video in videos], 1)
  banner = np.full((_BANNER, strip.shape[1], 3), 255, np.uint8)
  font = cv2.FONT_HERSHEY_SIMPLEX
  cv2.putText(banner, title, (4, 11), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
  return np.concatenate([banner, strip])


def _strip(video: pathlib.Path, columns: int) -> np.ndarray:
  with av.open(str(video)) as container:
    frames = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
  chosen = np.linspace(0, len(frames) - 1, columns).round().astype(int)
  cells = np.full((_HEIGHT, columns * _WIDTH, 3), 255, np.uint8)
  for column, frame in enumerate(frames[i] for i in chosen):
    width = round(_HEIGHT * frame.shape[1] / frame.shape[0])
    left = column * _WIDTH
    cells[:, left : left + width] = cv2.resize(
      frame, (width, _HEIGHT), interpolation=cv2.INTER_CUBIC
    )
  return cells
