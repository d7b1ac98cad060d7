"""What happens when in a long video: a verdict for each of its windows."""

import csv
import dataclasses
import math
import pathlib
import warnings
from collections.abc import Iterator

import matplotlib
import matplotlib.figure
import matplotlib.patches
import numpy as np

from mtnet_jax.data.clips import view_indices
from mtnet_jax.data.views import Frames
from mtnet_jax.errors import UserError, printable
from mtnet_jax.prediction import Predictor
from mtnet_jax.prediction.user_videos import Video
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.typing import Float, Int

_MAX_DRAWN = 6  # classes: as many as colors that the eye tells apart
_MAX_MARKED = 100  # windows: beyond, markers hide the lines
_OTHERS = '0.75'  # gray


@dataclasses.dataclass(frozen=True)
class Timeline:
  """Windows of a video, in order, and what the model says of each.

  Attributes:
    title: the video's name.
    class_names: the names of the k classes.
    starts: `(n,)` seconds from the video's start, of the window's first frame.
    ends: `(n,)` seconds, of its last frame's end.
    probabilities: `(n, k)` float32; rows sum to 1.
  """

  title: str
  class_names: tuple[str, ...]
  starts: Float[np.ndarray, ' n']
  ends: Float[np.ndarray, ' n']
  probabilities: Float[np.ndarray, 'n k']


def judge(
  predictor: Predictor,
  video: Video,
  window: float | None = None,
  hop: float | None = None,
) -> Timeline:
  """Judges a video window by window, in memory that does not grow with it.

  A window is judged as evaluation judges a video: by clips spread over it, as
  many as cover it, and the run's crops of each. The last window ends with the
  video, and a video that is shorter than a window is one.

  Args:
    predictor: the model.
    video: a video, as the predictor takes it.
    window: seconds; None: one clip of the run's frames and stride.
    hop: seconds from one window's start to the next; None: half a window.

  Returns:
    The timeline. Times are by the video's average frame rate.

  Raises:
    UserError: what the predictor raises, or a time is not above 0.
  """
  check_times(window, hop)
  data = predictor.config.data
  span = (data.num_frames - 1) * data.frame_stride + 1
  with predictor.open(video) as reader:
    count, fps = reader.num_frames, reader.fps
    length = span if window is None else max(1, round(window * fps))
    length = min(length, count)
    step = length // 2 if hop is None else round(hop * fps)
    starts = _starts(count, length, max(1, step))
    clips = view_indices(
      length, data.num_frames, data.frame_stride, -(-length // span)
    )
    rows = list(_judge_windows(predictor, reader, starts, clips))
    title = reader.name
  return Timeline(
    title,
    predictor.class_names,
    starts / fps,
    (starts + length) / fps,
    np.concatenate(rows),
  )


def check_times(window: float | None, hop: float | None) -> None:
  """Raises a UserError unless each is None or seconds above 0, finite."""
  for name, seconds in (('window', window), ('hop', hop)):
    if seconds is not None and not 0 < seconds < math.inf:
      raise UserError(
        f'{name} (={seconds}) must be a finite number of seconds above 0, for '
        'instance 2.5; leave it out for the length that suits the model.'
      )


def _starts(count: int, length: int, step: int) -> np.ndarray:
  """First frames of windows, the last of which ends with the video."""
  last = count - length
  return np.append(np.arange(0, last, step), last)


def _judge_windows(
  predictor: Predictor,
  reader: Frames,
  starts: Int[np.ndarray, ' n'],
  clips: Int[np.ndarray, 'i t'],
) -> Iterator[Float[np.ndarray, 'n k']]:
  """Judges b windows at a time, of as many clips as fill a step, or one."""
  i, t = clips.shape
  most = max(1, predictor.clips_per_step // predictor.config.eval.num_crops)
  batch = max(1, most // i)
  for first in range(0, len(starts), batch):
    own = starts[first : first + batch]
    indices = (own[:, None, None] + clips).reshape(-1, t)
    # In pieces: a window may be as long as the video.
    scores = [
      predictor.probabilities(predictor.read(reader, indices[k : k + most]))
      for k in range(0, len(indices), most)
    ]
    rows = np.concatenate(scores)
    yield rows.reshape(len(own), -1, rows.shape[1]).mean(axis=1)


def write(timeline: Timeline, directory: str | pathlib.Path) -> None:
  """Writes `timeline.csv` and `timeline.png`.

  The table has the columns `start_seconds`, `end_seconds`, `top_class`, and the
  probability of each class under its name.

  Args:
    timeline: the timeline from `judge`.
    directory: made if need be.

  Raises:
    UserError: it cannot be written.
  """
  directory = make_folder(directory)
  try:
    _write_table(timeline, directory / 'timeline.csv')
    _draw(timeline, directory / 'timeline.png')
  except (PermissionError, IsADirectoryError) as error:
    raise UserError(
      f'{error.filename} cannot be written: {error.strerror}. Remove it, or '
      'name another folder.'
    ) from error


def _write_table(timeline: Timeline, path: pathlib.Path) -> None:
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(
      ['start_seconds', 'end_seconds', 'top_class', *timeline.class_names]
    )
    for start, end, row in zip(
      timeline.starts, timeline.ends, timeline.probabilities, strict=True
    ):
      top = timeline.class_names[row.argmax()]
      shares = [f'{share:.4f}' for share in row]
      writer.writerow([f'{start:.3f}', f'{end:.3f}', top, *shares])


def _draw(timeline: Timeline, path: pathlib.Path) -> None:
  """Draws the probabilities of the most frequent classes over time.

  Below them, the band shows each moment's most probable class: that of the
  window whose middle is nearest.
  """
  drawn = _most_frequent(timeline.probabilities)
  colors = dict(zip(drawn, matplotlib.colormaps['tab10'].colors, strict=False))
  middles = (timeline.starts + timeline.ends) / 2
  figure = matplotlib.figure.Figure(figsize=(11, 4), layout='constrained')
  axes, band = figure.subplots(2, 1, sharex=True, height_ratios=(12, 1))
  marker = '.' if len(middles) <= _MAX_MARKED else ''
  for index, color in colors.items():
    axes.plot(
      middles, timeline.probabilities[:, index], color=color, marker=marker
    )
  borders = np.concatenate(
    [timeline.starts[:1], (middles[1:] + middles[:-1]) / 2, timeline.ends[-1:]]
  )
  tops = timeline.probabilities.argmax(axis=1)
  band.bar(
    borders[:-1],
    1,
    np.diff(borders),
    align='edge',
    color=[colors.get(top, _OTHERS) for top in tops],
  )
  band.set_yticks([])
  band.set_ylim(0, 1)
  band.set_xlim(borders[0], borders[-1])
  band.set_xlabel('seconds')
  axes.set_ylim(-0.02, 1.02)
  axes.set_ylabel('probability')
  axes.grid(alpha=0.3)
  axes.set_title(printable(pathlib.Path(timeline.title).name), parse_math=False)
  _add_legend(axes, timeline, drawn)
  with warnings.catch_warnings():
    # Of characters that the font lacks, and shows as boxes.
    warnings.filterwarnings('ignore', 'Glyph')
    figure.savefig(path, dpi=110)


def _most_frequent(probabilities: np.ndarray) -> list[int]:
  """The classes that are most probable in the most windows, at most a few."""
  counts = np.bincount(
    probabilities.argmax(axis=1), minlength=probabilities.shape[1]
  )
  order = np.lexsort((-probabilities.mean(axis=0), -counts))
  # Windows may all agree: the next ones are what they might have been.
  return order[: max(3, min(_MAX_DRAWN, np.count_nonzero(counts)))].tolist()


def _add_legend(axes, timeline: Timeline, drawn: list[int]) -> None:
  names = [printable(timeline.class_names[index]) for index in drawn]
  handles = list(axes.lines)
  if set(timeline.probabilities.argmax(axis=1)) - set(drawn):
    names.append('others')
    handles.append(matplotlib.patches.Patch(color=_OTHERS))
  legend = axes.legend(
    handles, ['-'] * len(names), loc='center left', bbox_to_anchor=(1, 0.5)
  )
  for text, name in zip(legend.get_texts(), names, strict=True):
    # A class's name may hold a dollar sign, and is no formula.
    text.set_parse_math(False)
    text.set_text(name)
