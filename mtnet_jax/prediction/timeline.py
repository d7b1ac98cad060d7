"""Classifies a long video over time, window by window."""

import csv
import dataclasses
import math
import pathlib
import warnings
from collections.abc import Iterable, Iterator

import matplotlib
import matplotlib.figure
import matplotlib.patches
import numpy as np

from mtnet_jax import files
from mtnet_jax.data import tables
from mtnet_jax.data.views import Frames
from mtnet_jax.errors import UserError, printable
from mtnet_jax.prediction import Predictor
from mtnet_jax.prediction.user_videos import Video
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.typing import Float, Int

_MAX_DRAWN = 6  # classes: as many as colors that the eye tells apart
_MAX_MARKED = 100  # windows: beyond, markers hide the lines
_SAME = 1e-9  # seconds: times that are one, but for rounding
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
  """Classifies a video window by window, in constant memory.

  A window is judged as evaluation judges a video: by clips spread over it, as
  many as cover it, and the run's crops of each. The last window ends with the
  video, and a video that is shorter than a window is one. Windows begin and end
  with frames, at the times that the video gives them; a window has the frames
  from the one nearest to its beginning to the one before that nearest to its
  end, or the single one that is shown all the while. Repeated windows are left
  out. Where the run's clips have frames of the whole video
  (`data.sampling='uniform'`), one has frames of all of a window, whose length
  has to be given.

  Args:
    predictor: the model.
    video: a video, as the predictor takes it.
    window: the window's length in seconds; None: the frames of one clip, by the
      run's stride.
    hop: seconds from one window's start to the next; None: half a window.

  Returns:
    The timeline.

  Raises:
    UserError: what the predictor raises, a time is not above 0, or `window` is
      missing.
  """
  check_times(window, hop)
  check_window(predictor, window)
  data = predictor.config.data
  span = (data.num_frames - 1) * data.frame_stride + 1
  with predictor.open(video) as reader:
    times = reader.times
    starts, ends = _windows(times, span, window, hop)
    if data.sampling == 'uniform':
      span = len(times)  # one covers any window
    clips = (
      first + predictor.clip_indices(last - first, -(-(last - first) // span))
      for first, last in zip(starts, ends, strict=True)
    )
    rows = list(_judge_windows(predictor, reader, clips))
    title = reader.name
  return Timeline(
    title,
    predictor.class_names,
    times[starts],
    times[ends],
    np.stack(rows),
  )


def check_times(window: float | None, hop: float | None) -> None:
  """Raises a UserError unless each is None or seconds above 0, finite."""
  for name, seconds in (('window', window), ('hop', hop)):
    if seconds is not None and not 0 < seconds < math.inf:
      raise UserError(
        f'{name} (={seconds}) must be a finite number of seconds above 0, for '
        'instance 2.5; leave it out for the length that suits the model.'
      )


def check_window(predictor: Predictor, window: float | None) -> None:
  """Raises a UserError where a window's length does not follow from the run."""
  if window is None and predictor.config.data.sampling == 'uniform':
    raise UserError(
      f'A clip of {predictor.source} has frames of the whole video '
      "(data.sampling='uniform'), so that a timeline needs the length of its "
      'windows: give --window=SECONDS, about as long as an action.'
    )


def _windows(
  times: Float[np.ndarray, ' n_plus_1'],
  span: int,
  window: float | None,
  hop: float | None,
) -> tuple[Int[np.ndarray, ' w'], Int[np.ndarray, ' w']]:
  """Returns windows' first frames, and the frames after their last ones."""
  count = len(times) - 1
  length = min(span, count)
  last = count - length
  if window is None and hop is None:
    starts = np.append(np.arange(0, last, max(1, length // 2)), last)
    return starts, starts + length
  begin = times[last] if window is None else max(0, times[-1] - window)
  hop = hop or window / 2
  # Only times next to a frame count: between two far apart nothing happens.
  hops = np.unique([np.floor(times / hop), np.ceil(times / hop)]) * hop
  begins = np.append(hops[hops < begin], begin)
  starts = _nearest(times, begins)
  if window is None:
    ends = starts + length
  else:
    ends = _nearest(times, begins + window)
    shown = np.searchsorted(times[:-1], begins, side='right') - 1
    starts = np.where(starts < ends, starts, shown)
    ends = np.maximum(ends, starts + 1)
  others = np.append(np.diff(starts) > 0, True)
  return starts[others], ends[others]


def _nearest(
  times: Float[np.ndarray, ' n'], seconds: Float[np.ndarray, ' m']
) -> Int[np.ndarray, ' m']:
  """Returns the places of the nearest times; of two equal ones, the even."""
  after = np.clip(np.searchsorted(times, seconds), 1, len(times) - 1)
  nearer = seconds - times[after - 1] - (times[after] - seconds)
  even = after - after % 2
  return np.where(abs(nearer) < _SAME, even, after - (nearer < 0))


def _judge_windows(
  predictor: Predictor,
  reader: Frames,
  windows: Iterable[Int[np.ndarray, 'i t']],
) -> Iterator[Float[np.ndarray, ' k']]:
  """Classifies as many windows at a time as fill a step, or one."""
  most = max(1, predictor.clips_per_step // predictor.config.eval.num_crops)
  for group in _groups(windows, most):
    indices = np.concatenate(group)
    # Clips are read in pieces, since a window may be as long as the video.
    scores = [
      predictor.probabilities(predictor.read(reader, indices[k : k + most]))
      for k in range(0, len(indices), most)
    ]
    rows = np.concatenate(scores)
    crops = len(rows) // len(indices)
    borders = crops * np.cumsum([len(clips) for clips in group])
    for own in np.split(rows, borders[:-1]):
      yield own.mean(axis=0)


def _groups(
  windows: Iterable[Int[np.ndarray, 'i t']], most: int
) -> Iterator[list[Int[np.ndarray, 'i t']]]:
  """Groups windows in order, with at most `most` clips together."""
  group = []
  for clips in windows:
    if group and sum(map(len, group)) + len(clips) > most:
      yield group
      group = []
    group.append(clips)
  yield group


def write(timeline: Timeline, directory: str | pathlib.Path) -> None:
  """Writes `timeline.csv` and `timeline.png`.

  The table has the columns `start_seconds`, `end_seconds`, `top_class`, and the
  probability of each class under its name. Times are the frames' own; names are
  cells as `tables.cell` makes them.

  Args:
    timeline: the timeline from `judge`.
    directory: made if need be.

  Raises:
    UserError: it cannot be written.
  """
  directory = make_folder(directory)
  try:
    with files.writing_folder(directory) as folder:
      _write_table(timeline, folder / 'timeline.csv')
      _draw(timeline, folder / 'timeline.png')
  except (PermissionError, IsADirectoryError) as error:
    raise UserError(
      f'{error.filename} cannot be written: {error.strerror}. Remove it, or '
      'name another folder.'
    ) from error


def _write_table(timeline: Timeline, path: pathlib.Path) -> None:
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    names = [tables.cell(name) for name in timeline.class_names]
    writer.writerow(['start_seconds', 'end_seconds', 'top_class', *names])
    for start, end, row in zip(
      timeline.starts, timeline.ends, timeline.probabilities, strict=True
    ):
      top = names[row.argmax()]
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
  """Returns the classes that are most probable in the most windows."""
  counts = np.bincount(
    probabilities.argmax(axis=1), minlength=probabilities.shape[1]
  )
  order = np.lexsort((-probabilities.mean(axis=0), -counts))
  # Windows may all agree: the next classes are the runners-up.
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
