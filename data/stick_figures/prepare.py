"""Draws the stick figures, a data set of videos of drawn people.

mtnet prepare stick_figures --out=DIR [--set=idle]
"""

import concurrent.futures
import csv
import functools
import io
import json
import multiprocessing
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from absl import flags, logging

from mtnet_jax import cli, files, progress
from mtnet_jax.datasets.stick_figures import contact_sheet, sets, videos
from mtnet_jax.errors import UserError

VERSION = 1  # of what a seed makes; goes up when pictures change
COLUMNS = (
  'path', 'label', 'split', 'frames', 'fps', 'duration', 'width', 'height',
)  # fmt: skip
_SETTINGS, _BOXES, _CLIPS = 'settings.json', 'boxes.npz', 'clips.csv'
_ACTIONS = 'actions.csv'


def prepare(
  directory: str | os.PathLike,
  counts: Mapping[str, int],
  seed: int = 0,
  num_workers: int = 0,
  figures: str = sets.DEFAULT,
) -> None:
  """Makes the data set, or what is missing of it.

  Args:
    directory: empty, or holding an unfinished data set of the same set and
      seed.
    counts: videos a class for 'train', 'val' and 'test', each at least 1.
    seed: the seed, at least 0.
    num_workers: processes beside this one; 0 works in this one.
    figures: the name of the set, one of `sets.SETS`.

  Raises:
    UserError: an argument is out of range, or the directory holds something
      else or cannot be written to.
  """
  _check(counts, seed, num_workers)
  if figures not in sets.SETS:
    raise UserError(
      f'--set (={figures}) must be one of {", ".join(sets.SETS)}.'
    )
  directory = pathlib.Path(directory)
  settings = {'version': VERSION, 'seed': seed, **counts}
  if figures != sets.DEFAULT:
    settings['set'] = figures
  plan = [
    videos.Video(seed, split, label, index, figures)
    for split in videos.SPLITS
    for index in range(counts[split])
    for label in sets.SETS[figures].names
  ]
  try:
    if _complete(directory, settings, plan):
      logging.info('%s is complete.', directory)
      return
    # Without the list nothing takes what follows for a whole data set.
    (directory / _CLIPS).unlink(missing_ok=True)
    files.write_text(directory / _SETTINGS, json.dumps(settings))
    boxes = _make_all(plan, directory, num_workers)
    with files.replacing(directory / _BOXES) as partial:
      with partial.open('wb') as file:
        np.savez(file, **boxes)
    if sets.SETS[figures].tells_when:
      files.write_text(directory / _ACTIONS, _action_table(plan))
    files.write_text(directory / _CLIPS, _table(plan))
  except OSError as error:
    raise UserError(
      f'{directory} cannot be written to: {error}. Give another --out, or '
      'mend this and start again: what is finished is kept.'
    ) from error


def _check(counts: Mapping[str, int], seed: int, num_workers: int) -> None:
  for split in videos.SPLITS:
    if counts[split] < 1:
      raise UserError(
        f'--{split} (={counts[split]}) must be at least 1 video a class.'
      )
  for name, value in (('seed', seed), ('num_workers', num_workers)):
    if value < 0:
      raise UserError(f'--{name} (={value}) must be at least 0.')


def _complete(
  directory: pathlib.Path,
  settings: Mapping[str, int | str],
  plan: Sequence[videos.Video],
) -> bool:
  """Tells whether nothing is left to do, and refuses what is not ours."""
  directory.mkdir(parents=True, exist_ok=True)
  if not any(directory.iterdir()):
    return False
  try:
    found = json.loads((directory / _SETTINGS).read_text())
    ours = found['version'], found['seed'], found.get('set', sets.DEFAULT)
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    raise UserError(
      f'{directory} is not empty and holds no stick figures. Give --out a new '
      'or an empty directory.'
    ) from None
  asked = settings['version'], settings['seed']
  asked = *asked, settings.get('set', sets.DEFAULT)
  if ours != asked:
    raise UserError(
      f'{directory} holds stick figures of version {ours[0]}, seed {ours[1]} '
      f'and set {ours[2]}; asked for are version {asked[0]}, seed {asked[1]} '
      f'and set {asked[2]}. Give another --out, or delete it.'
    )
  return (
    found == settings
    and (directory / _CLIPS).exists()
    and all((directory / video.path).exists() for video in plan)
  )


def _make_all(
  plan: Sequence[videos.Video], directory: pathlib.Path, num_workers: int
) -> dict[str, np.ndarray]:
  """Returns the boxes by the path of the video, after its file is there."""
  boxes = {}
  with progress.Progress('stick figures', len(plan), 'videos') as bar:
    made = _run(plan, directory, num_workers)
    for video, of in zip(plan, made, strict=True):
      boxes[video.path] = of
      bar.advance()
  return boxes


def _run(
  plan: Sequence[videos.Video], directory: pathlib.Path, num_workers: int
) -> Iterator[np.ndarray]:
  make = functools.partial(videos.make, directory=directory)
  if num_workers == 0:
    yield from map(make, plan)
    return
  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    # Not forked: other threads may be running in this process.
    mp_context=multiprocessing.get_context('spawn'),
    initializer=cv2.setNumThreads,
    initargs=(1,),
  ) as pool:
    try:
      yield from pool.map(make, plan, chunksize=4)
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _table(plan: Sequence[videos.Video]) -> str:
  """Returns the rows of clips.csv."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(COLUMNS)
  for video in plan:
    form = video.form
    duration = f'{form.frames / form.fps:.3f}'
    facts = form.frames, form.fps, duration, form.width, form.height
    writer.writerow((video.path, video.label, video.split, *facts))
  return text.getvalue()


def _action_table(plan: Sequence[videos.Video]) -> str:
  """Returns the rows of actions.csv: the frames `start <= i < end` move."""
  rows = ['path,start,end']
  for video in plan:
    phase = video.form.phase
    (moving,) = np.nonzero((phase > 0) & (phase < 1))
    rows.append(f'{video.path},{moving[0]},{moving[-1] + 1}')
  return '\n'.join(rows) + '\n'


def _draw_sheet(
  path: str, directory: pathlib.Path, seed: int, figures: str
) -> None:
  """Draws the first training and the first test video of each class."""
  rows = {
    label: [
      directory / videos.Video(seed, split, label, 0, figures).path
      for split in ('train', 'test')
    ]
    for label in sets.SETS[figures].names
  }
  sheet = contact_sheet.draw(rows, columns=7)
  encoded = cv2.imencode('.png', sheet[..., ::-1])[1]
  try:
    files.write_bytes(pathlib.Path(path), encoded.tobytes())
  except OSError as error:
    raise UserError(
      f'--contact_sheet (={path}) cannot be written: {error}.'
    ) from error


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'out', None, 'Folder to write the data set to.', flag_values=values
  )
  flags.DEFINE_string(
    'set',
    sets.DEFAULT,
    'Set to draw: actions, fifteen classes that fill their videos; idle, '
    'short actions of people who otherwise stand idle; speed, pairs of '
    'classes that differ only in speed.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'seed',
    0,
    'Seed of the random generator; each draws other videos.',
    flag_values=values,
  )
  for split, name, count in (
    ('train', 'training', 100),
    ('val', 'validation', 8),
    ('test', 'test', 15),
  ):
    flags.DEFINE_integer(
      split, count, f'Number of {name} videos per class.', flag_values=values
    )
  flags.DEFINE_integer(
    'num_workers',
    2,
    'Number of processes that draw videos; 0 draws them in this process.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'contact_sheet',
    '',
    'PNG file to write a picture of two videos of each class to; without it '
    'none is written.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Makes the data set that the flags describe."""
  if not values.out:
    raise UserError('--out is needed: the directory to write to.')
  counts = {split: values[split].value for split in ('train', 'val', 'test')}
  prepare(
    values.out, counts, values.seed, values.num_workers, values['set'].value
  )
  if values.contact_sheet:
    _draw_sheet(
      values.contact_sheet,
      pathlib.Path(values.out),
      values.seed,
      values['set'].value,
    )


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
