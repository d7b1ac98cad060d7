"""Classifies videos: mtnet predict --workdir=DIR VIDEO [VIDEO ...].

A VIDEO is a file, a folder, a pattern, or an .npy file with an array of frames.
DIR holds a run, whose best checkpoint is used, an exported model, or a model in
the form of Hugging Face's hub. The command prints a table at the end, or with
--json or --csv a line for each video as soon as it is classified:

  mtnet predict --workdir=DIR --csv --top=3 FOLDER > predictions.csv

Progress, and the videos that cannot be read, are reported on stderr. The exit
code is 1 if some of the videos could not be classified, and 2 if none could.
"""

import csv
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import rich.console
import rich.markup
import rich.table
from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import tables
from mtnet_jax.devices import host_memory
from mtnet_jax.errors import UserError, printable
from mtnet_jax.prediction import Prediction, Predictor, timeline
from mtnet_jax.prediction.user_videos import InputError, find_videos
from mtnet_jax.progress import Progress
from mtnet_jax.runs import given
from mtnet_jax.runs.folder import make_folder

SOME_FAILED = 1
ALL_FAILED = 2


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_run(
    values, 'Folder of a run, of an export, or of a model from the hub.'
  )
  given.define_flags(values)
  flags.DEFINE_integer(
    'top',
    5,
    'Number of classes to print for each video, the most probable first; 0 '
    'prints all.',
    0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'json',
    False,
    'Print a line of JSON for each video instead of a table.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'csv',
    False,
    'Print CSV with a row for each video instead of a table.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'timeline',
    None,
    'Folder to write the class probabilities over time to, a CSV and a PNG '
    'file for each video; without it none are written.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'window',
    None,
    'Length in seconds of the windows that --timeline classifies; without it '
    'the length of a clip.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'hop',
    None,
    'Time in seconds from one window of --timeline to the next; without it '
    'half a window.',
    flag_values=values,
  )


def main(values: flags.FlagValues, names: Sequence[str]) -> int:
  """Classifies the videos that the command line names."""
  times = values.window, values.hop
  check_arguments(names, values.timeline, *times)
  if values.json and values.csv:
    raise UserError(
      '--json and --csv both write to stdout: give one of them, and the '
      'command a second time for the other.'
    )
  host_memory.keep_freed_memory()
  predictor = Predictor(
    values.workdir, values.checkpoint, given=given.read(values)
  )
  timelines = None
  if values.timeline is not None:
    timeline.check_window(predictor, values.window)
    timelines = TimelineWriter(values.timeline, *times)
  return predict(
    predictor,
    names,
    top=values.top,
    as_json=values.json,
    as_csv=values.csv,
    timelines=timelines,
  )


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The outcome for one video.

  Attributes:
    video: the video's path as it was named, or found in a folder.
    result: the prediction, or why there is none.
    timeline: the folder that holds it, or '' where there is none.
  """

  video: str
  result: Prediction | InputError
  timeline: str = ''


class TimelineWriter:
  """Writes a timeline of each video, into a folder of its own."""

  def __init__(
    self,
    directory: str | pathlib.Path,
    window: float | None = None,
    hop: float | None = None,
  ):
    """Makes the folder, so that it fails early if it must.

    Args:
      directory: gets a folder for each video, named after it.
      window: see `timeline.judge`.
      hop: see `timeline.judge`.

    Raises:
      UserError: it cannot be written.
    """
    self._directory = make_folder(directory)
    self._window, self._hop = window, hop
    self._taken = set()

  def write(self, predictor: Predictor, video: str) -> str:
    """Writes a video's `timeline.csv` and `.png`; returns their folder.

    Raises:
      InputError: what the predictor raises, or they cannot be written.
      UserError: what the predictor raises.
    """
    judged = timeline.judge(predictor, video, self._window, self._hop)
    folder = self._directory / self._folder(video)
    try:
      timeline.write(judged, folder)
    except UserError as error:  # others have folders of their own
      raise InputError(f'{video}: {error}') from error
    return str(folder)

  def _folder(self, video: str) -> str:
    # Dots at the start are dropped: `...mp4` would name the folder above.
    stem = name = pathlib.Path(video).stem.lstrip('.') or 'video'
    count = 1
    while name in self._taken:  # of another folder's video
      count += 1
      name = f'{stem}-{count}'
    self._taken.add(name)
    return name


def predict(
  predictor: Predictor,
  names: Sequence[str],
  *,
  top: int = 5,
  as_json: bool = False,
  as_csv: bool = False,
  timelines: TimelineWriter | None = None,
) -> int:
  """Classifies videos and prints the results.

  Args:
    predictor: the model.
    names: files, folders and patterns, as `find_videos` takes them.
    top: classes that are told of each video; 0: all.
    as_json: a line of JSON for each video, at once; else a table at the end.
    as_csv: a row of a CSV table for each video, at once.
    timelines: writes those too, or None.

  Returns:
    The exit code: 0, or 1 where some could not be judged, 2 where none could.

  Raises:
    UserError: what concerns every video, and never a single one.
  """
  count = len(predictor.class_names)
  top = min(top or count, count)
  videos, missing = find_videos(names)
  verdicts = [
    Verdict(name, InputError(f'{name}: {why}.')) for name, why in missing
  ]
  stdout = sys.stdout  # a bar of progress puts itself in its place
  tell = _print_json if as_json else _print_csv if as_csv else None
  if as_csv:
    _print_row(_csv_columns(top), stdout)
  if tell:
    for verdict in verdicts:
      tell(verdict, top, stdout)
  # On a terminal, lines and a bar would run into each other.
  silent = bool(tell) and stdout.isatty()
  try:
    for verdict in _judge(predictor, videos, timelines, silent):
      verdicts.append(verdict)
      if tell:
        tell(verdict, top, stdout)
  finally:  # what is known is told, whatever ends it
    if not tell:
      _print_table(verdicts, top)
    code = _tell_failures(verdicts)
  return code


def _judge(
  predictor: Predictor,
  videos: Sequence[str],
  timelines: TimelineWriter | None,
  silent: bool,
) -> Iterator[Verdict]:
  with Progress('predicting', len(videos), 'videos', silent=silent) as progress:
    for video in videos:
      try:
        prediction = predictor(video)
        folder = timelines.write(predictor, video) if timelines else ''
        yield Verdict(video, prediction, folder)
      except InputError as error:
        yield Verdict(video, error)
      progress.advance()


def _print_json(verdict: Verdict, top: int, file: TextIO) -> None:
  line, result = {'video': verdict.video}, verdict.result
  if isinstance(result, InputError):
    line['error'] = str(result)
  else:
    line['probabilities'] = dict(result.top(top))
    line['seconds'] = round(result.seconds, 3)
    more = {'note': result.note, 'timeline': verdict.timeline}
    line |= {key: value for key, value in more.items() if value}
  # The one control character that JSON leaves as it is.
  text = json.dumps(line).replace('\x7f', '\\u007f')
  print(text, file=file, flush=True)


def _csv_columns(top: int) -> list[str]:
  ranks = range(1, top + 1)
  pairs = [(f'class_{rank}', f'probability_{rank}') for rank in ranks]
  classes = [name for pair in pairs for name in pair]
  return ['video', *classes, 'seconds', 'note', 'timeline', 'error']


def _print_csv(verdict: Verdict, top: int, file: TextIO) -> None:
  result, row = verdict.result, [tables.cell(verdict.video)]
  if isinstance(result, InputError):
    # The columns between the first and the last have no values.
    row += [''] * (2 * top + 3) + [tables.cell(str(result))]
  else:
    for name, share in result.top(top):
      row += [tables.cell(name), f'{share:.6f}']
    row.append(f'{result.seconds:.3f}')
    row += [tables.cell(result.note), tables.cell(verdict.timeline), '']
  _print_row(row, file)


def _print_row(cells: Sequence[str], file: TextIO) -> None:
  csv.writer(file, lineterminator='\n').writerow(cells)
  file.flush()


def _print_table(verdicts: Sequence[Verdict], top: int) -> None:
  table = rich.table.Table(show_lines=True)
  table.add_column('video', overflow='fold')
  table.add_column('class', overflow='fold')
  table.add_column('probability', justify='right')
  for verdict in verdicts:
    result = verdict.result
    if isinstance(result, Prediction):
      notes = [result.note, verdict.timeline]
      classes, shares = zip(*result.top(top), strict=True)
      table.add_row(
        '\n'.join(
          rich.markup.escape(printable(line))
          for line in (verdict.video, *notes)
          if line
        ),
        rich.markup.escape('\n'.join(map(printable, classes))),
        '\n'.join(f'{share:.1%}' for share in shares),
      )
  if table.row_count:
    rich.console.Console(emoji=False, highlight=False).print(table)


def _tell_failures(verdicts: Sequence[Verdict]) -> int:
  failed = [v.result for v in verdicts if isinstance(v.result, InputError)]
  return tell_failures(failed, len(verdicts), 'not judged')


def tell_failures(failed: Sequence[InputError], count: int, what: str) -> int:
  """Prints why some videos have no result, and returns the exit code.

  Args:
    failed: the reasons, a sentence for each failed video.
    count: the number of all videos.
    what: the fate of those that failed, in words.
  """
  if not failed:
    return 0
  print(f'{len(failed)} of {count} {what}:', file=sys.stderr)
  for error in failed:
    print(f'  {printable(str(error))}', file=sys.stderr)
  return ALL_FAILED if len(failed) == count else SOME_FAILED


def check_arguments(
  names: Sequence[str],
  directory: str | None,
  window: float | None,
  hop: float | None,
) -> None:
  """Raises a UserError where the command line makes no sense."""
  if not names:
    raise UserError(
      'No video is named. Give files, folders or patterns: mtnet predict '
      '--workdir=DIR VIDEO [VIDEO ...].'
    )
  if directory is None and (window is not None or hop is not None):
    raise UserError(
      '--window and --hop need a timeline: give --timeline=DIR too.'
    )
  timeline.check_times(window, hop)


COMMAND = cli.Command(main, define_flags, takes_arguments=True)
