"""Makes a video file from its place in the data set."""

import dataclasses
import functools
import pathlib

import av
import numpy as np

from mtnet_jax import files
from mtnet_jax.datasets.stick_figures import formats, scene, sets

SPLITS = ('train', 'val', 'test')

# One thread, as the workers share the cores. No look-ahead: with the slower
# presets' x264 writes other bytes for the same frames now and then.
_ENCODER = {'preset': 'superfast', 'crf': '22', 'g': '30', 'threads': '1'}


@dataclasses.dataclass(frozen=True)
class Video:
  """The place of one video in the data set; everything follows from it.

  Attributes:
    seed: the seed of the data set.
    split: one of `SPLITS`.
    label: one of the set's classes.
    index: number within its class and split, from 0.
    figures: the name of the set, one of `sets.SETS`.
  """

  seed: int
  split: str
  label: str
  index: int
  figures: str = sets.DEFAULT

  @property
  def path(self) -> str:
    """The path of the file, relative to the data set's directory."""
    return f'{self.split}/{self.label}/{self.index:04}.mp4'

  @property
  def entropy(self) -> tuple[int, ...]:
    """The seed of the video's generator; no two videos share it."""
    figures = sets.SETS[self.figures]
    split, label = SPLITS.index(self.split), figures.names.index(self.label)
    return self.seed, split, self.index, 1 + label, *figures.entropy

  @functools.cached_property
  def form(self) -> formats.Format:
    """Size, length and frame rate.

    They are drawn without the label: the videos of one index are alike in
    them, whatever their class, so that they say nothing about it.
    """
    figures = sets.SETS[self.figures]
    entropy = (*self.entropy[:3], 0, *figures.entropy)
    return figures.sample(self.index, np.random.default_rng(entropy))

  def scene(self) -> scene.Scene:
    """Sets up what the video shows."""
    rng = np.random.default_rng(self.entropy)
    perform = sets.SETS[self.figures].perform
    return scene.Scene(self.label, self.form, rng, perform)


def make(video: Video, directory: pathlib.Path) -> np.ndarray:
  """Writes a video, unless its file is there, and returns the actors' boxes.

  The file gets its name when it is whole, so one that is there is whole.

  Args:
    video: which.
    directory: the data set's; the video's own folder is made.

  Returns:
    (t, actors, 4) int16: x0, y0, x1, y1 in pixels; see `shapes.boxes`.
  """
  shown = video.scene()
  path = directory / video.path
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, durable=False) as partial:
      _encode(shown, partial)
  return shown.boxes()


def _encode(shown: scene.Scene, path: pathlib.Path) -> None:
  form = shown.form
  try:
    with av.open(str(path), 'w', format='mp4') as container:
      stream = container.add_stream('libx264', rate=form.fps)
      stream.width, stream.height = form.width, form.height
      stream.pix_fmt = 'yuv420p'
      stream.options = _ENCODER
      for image in shown.frames():
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  except av.FFmpegError as error:  # which does not cross to other processes
    raise OSError(f'{path}: {error}') from None
