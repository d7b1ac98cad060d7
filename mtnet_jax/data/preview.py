r"""Draws a batch as the network sees it, a row of frames for each clip.

  mtnet preview --config=quickstart \
    --config.data.dir=DIR --out=batch.png [--step=0] [--clips=8] [--split=train]

The clips are cut, resized and augmented as in training on one device and, with
multigrid, have the shape of the step. For the other splits, the rows are the
views of an evaluation.
"""

import dataclasses
import math
import pathlib
import textwrap
from collections.abc import Sequence

import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
from absl import flags
from jaxtyping import UInt8

from mtnet_jax import cli, files, locations
from mtnet_jax.data import batches, pipeline, sources, transforms
from mtnet_jax.errors import UserError, printable

# Pixels of the picture.
_FRAMES_WIDTH = 1600  # of a clip's frames together, at most
_LARGE = 128  # smaller frames are magnified, by whole numbers, up to this
_SMALL = 24  # frames are not shrunk below this
_MARGIN, _GAP, _ROW_GAP = 16, 3, 12
_LINE, _SMALL_LINE = 17, 14  # from line to line
_DPI = 100

_CAPTION_STYLE = {'fontsize': 9}
_TITLE_STYLE = {'fontsize': 9, 'weight': 'bold'}
_SMALL_STYLE = {'fontsize': 7, 'family': 'monospace', 'color': '0.35'}

# Letters of a line.
_CAPTION_WIDTH, _TITLE_WIDTH, _ID_WIDTH = 140, 26, 36


@dataclasses.dataclass(frozen=True)
class Sheet:
  """The contents of the picture.

  Attributes:
    clips: uint8 (n, t, h, w, 3), h = w.
    names: the titles of the n clips: what they show, their ids, and a note or
      ''.
    caption: lines of text.
  """

  clips: UInt8[np.ndarray, 'n t h w 3']
  names: Sequence[tuple[str, str, str]]
  caption: Sequence[str]


def training_sheet(
  dataset: batches.TrainingBatches, step: int, count: int
) -> Sheet:
  """Returns the first clips of a training batch.

  Args:
    dataset: the data set from `pipeline.build`.
    step: the batch's number.
    count: clips, ≥ 1; fewer where the batch has fewer.

  Raises:
    UserError: there is no such batch.
  """
  _check(dataset, step)
  batch = dataset.first_clips(step, count)
  plain = dataclasses.replace(dataset, augment_share=0.0)
  changed = batch['clips'] != plain.first_clips(step, count)['clips']
  changed = changed.any(axis=(1, 2, 3, 4))
  lines = [
    f'Training batch {step} of {len(dataset)}: '
    + _size(dataset.multigrid.shape(step)),
    f'{len(changed)} clips shown, {changed.sum()} of them augmented; '
    f'of all clips {dataset.augment_share:.0%} are',
  ]
  lines += [f'left out: {name}: {cause}' for name, cause in batch['broken']]
  names = [
    (dataset.labels[label], str(name), 'augmented' if augmented else '')
    for label, name, augmented in zip(
      batch['labels'], batch['ids'], changed, strict=True
    )
  ]
  return Sheet(batch['clips'], names, lines)


def evaluation_sheet(
  dataset: batches.EvaluationBatches, step: int, count: int
) -> Sheet:
  """Returns the first views of an evaluation batch; arguments as above."""
  _check(dataset, step)
  batch = dataset[step]
  rows = np.flatnonzero(batch['ids'] != '')
  num_videos, num_views, t, h, w, _ = batch['clips'].shape
  clips = batch['clips'][rows].reshape(-1, t, h, w, 3)[:count]
  names = [
    (
      dataset.labels[batch['labels'][row]],
      str(batch['ids'][row]),
      f'clip {view // dataset.num_crops + 1}, '
      f'crop {view % dataset.num_crops + 1}',
    )
    for row in rows
    for view in range(num_views)
  ]
  lines = [
    f'Evaluation batch {step} of {len(dataset)}: '
    + _size((num_videos * num_views, t, h, w)),
    f'{len(clips)} views shown; a video has {dataset.num_clips} clips × '
    f'{dataset.num_crops} crops',
  ]
  lines += [
    f'not readable: {batch["ids"][row]}: {batch["broken"][row]}'
    for row in rows
    if not batch['mask'][row]
  ]
  return Sheet(clips, names[:count], lines)


def draw(sheet: Sheet, path: pathlib.Path) -> None:
  """Draws a sheet.

  Frames are shrunk where a clip would be too wide, and magnified by a whole
  number, pixel for pixel, where they are small.

  Args:
    sheet: the contents of the picture.
    path: the PNG to write.
  """
  n, t, size, _, _ = sheet.clips.shape
  cell = _cell_size(size, t)
  caption = [
    line
    for text in sheet.caption
    for line in textwrap.wrap(text, _CAPTION_WIDTH)
  ]
  titles, small, row_height = _beside_rows(sheet.names, cell)
  top = _MARGIN + _LINE * len(caption) + _ROW_GAP
  rows = top + (row_height + _ROW_GAP) * np.arange(n)
  text_width = max(
    max(_text_width(title, **_TITLE_STYLE) for title in titles),
    max(_text_width(lines, **_SMALL_STYLE) for lines in small),
  )
  columns = 2 * _MARGIN + text_width + (cell + _GAP) * np.arange(t)
  height = int(rows[-1]) + row_height + _MARGIN
  caption_right = _MARGIN + _text_width(caption, **_CAPTION_STYLE)
  width = max(int(columns[-1]) + cell, caption_right) + _MARGIN

  figure = matplotlib.figure.Figure((width / _DPI, height / _DPI), dpi=_DPI)
  figure.figimage(_mosaic(sheet.clips, rows, columns, cell, (height, width)))

  def write(y, lines, **style):
    place = _MARGIN / width, 1 - y / height
    figure.text(*place, '\n'.join(lines), va='top', parse_math=False, **style)

  write(_MARGIN, caption, **_CAPTION_STYLE)
  for row, title, lines in zip(rows, titles, small, strict=True):
    write(row, title, **_TITLE_STYLE)
    write(row + _LINE * len(title), lines, **_SMALL_STYLE)
  files.save_figure(figure, path, _DPI)


def _check(dataset: Sequence, step: int):
  if not 0 <= step < len(dataset):
    raise UserError(
      f'--step={step}: there are the batches 0 to {len(dataset) - 1}.'
    )


def _size(shape: tuple[int, int, int, int]) -> str:
  b, t, h, w = shape
  return f'{b} clips × {t} frames × {h} × {w} pixels'


def _cell_size(size: int, num_frames: int) -> int:
  room = _FRAMES_WIDTH // num_frames - _GAP
  if size > room:
    return max(room, _SMALL)
  return size * max(1, min(room, _LARGE) // size)


def _beside_rows(
  names: Sequence[tuple[str, str, str]], cell: int
) -> tuple[list[list[str]], list[list[str]], int]:
  """Returns large and small lines beside each row, and the rows' height."""
  titles = [
    textwrap.wrap(title, _TITLE_WIDTH, max_lines=3, placeholder=' …')
    for title, _, _ in names
  ]
  # Beside a row are its title, one line of the id at least, and the note.
  row_height = max(cell, _LINE * max(map(len, titles)) + 2 * _SMALL_LINE)
  small = [
    [
      *_lines_of_id(name, (row_height - _LINE * len(title)) // _SMALL_LINE),
      note,
    ]
    for title, (_, name, note) in zip(titles, names, strict=True)
  ]
  return titles, small, row_height


def _mosaic(
  clips: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  cell: int,
  shape: tuple[int, int],
) -> np.ndarray:
  """Returns a white picture with the frames at these places."""
  picture = np.full((*shape, 3), 255, np.uint8)
  factor = max(1, cell // clips.shape[2])
  for row, clip in zip(rows, clips, strict=True):
    # The first does nothing where frames are magnified, the others else.
    frames = transforms.resize_square(clip, min(cell, clip.shape[1]))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    for column, frame in zip(columns, frames, strict=True):
      picture[row : row + cell, column : column + cell] = frame
  return picture


def _text_width(lines: Sequence[str], **style) -> int:
  """Returns the pixels from the left end of a text to the right one."""
  figure = matplotlib.figure.Figure(dpi=_DPI)
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  # A class's name may hold a dollar sign, and is no formula.
  text = figure.text(0, 0, '\n'.join(lines), parse_math=False, **style)
  return math.ceil(text.get_window_extent(canvas.get_renderer()).width)


def _lines_of_id(text: str, num_lines: int) -> list[str]:
  """Returns fewer than so many lines; an id too long loses its middle."""
  room = _ID_WIDTH * (num_lines - 1)
  if len(text) > room:
    text = text[: room // 2] + '…' + text[len(text) - (room - room // 2 - 1) :]
  starts = range(0, len(text), _ID_WIDTH)
  return [text[first : first + _ID_WIDTH] for first in starts]


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_config(values)
  flags.DEFINE_string(
    'out', None, 'PNG file to write.', required=True, flag_values=values
  )
  flags.DEFINE_integer(
    'step',
    0,
    'Number of the training step whose batch is drawn, from 0.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'clips',
    8,
    'Number of clips, or of views of an evaluation, to draw at most, a row '
    'each.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'split',
    'train',
    sources.SPLITS,
    'Split whose videos are drawn.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Draws what the flags name."""
  out = locations.local_path(values.out)
  if out.suffix != '.png' or not out.parent.is_dir():
    raise UserError(f'--out={out} must be a .png file in a folder that exists.')
  dataset = pipeline.build(cli.get_config(values), values.split)
  training = values.split == 'train'
  make_sheet = training_sheet if training else evaluation_sheet
  sheet = make_sheet(dataset, values.step, values.clips)
  draw(sheet, out)
  print(*map(printable, [*sheet.caption, str(out)]), sep='\n')


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
