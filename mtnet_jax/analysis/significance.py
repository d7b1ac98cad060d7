"""Whether one of two runs is really better, or just luckier: McNemar's test.

  python -m mtnet_jax.analysis.significance \
    A/evaluation/predictions.npz B/evaluation/predictions.npz

Both files must be of the same videos. What decides is not how many each has
right but on how many they disagree (the thesis, section 6.5 and equation 6.1).
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import rich.console
import rich.table
from scipy import stats

from mtnet_jax import cli
from mtnet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two models on the same videos.

  Attributes:
    both: videos that both have right.
    only_a: that the first alone has right.
    only_b: that the second alone has right.
    neither: that none has right.
    statistic: chi-square, 0 or more.
    p_value: the probability of such a difference, or a larger one, if the
      models were equally good.
  """

  both: int
  only_a: int
  only_b: int
  neither: int
  statistic: float
  p_value: float


def mcnemar(both: int, only_a: int, only_b: int, neither: int) -> Comparison:
  """McNemar's test with Edwards's correction, the thesis's equation 6.1.

  `(|only_a - only_b| - 1)² / (only_a + only_b)`. The correction takes one off
  the difference where there is one; there is nothing to take off none.

  Args:
    both: videos that both models have right.
    only_a: that the first alone has right.
    only_b: that the second alone has right.
    neither: that none has right.

  Returns:
    The counts, and the chi-square statistic of one degree of freedom with its
    p-value: 0 and 1 where each is as often alone in being right.
  """
  difference = max(abs(only_a - only_b) - 1, 0)
  statistic = difference**2 / max(only_a + only_b, 1)
  p_value = float(stats.chi2.sf(statistic, df=1))
  return Comparison(both, only_a, only_b, neither, statistic, p_value)


def compare(
  path_a: str | pathlib.Path, path_b: str | pathlib.Path
) -> Comparison:
  """Compares the top-1 predictions of two evaluations.

  Args:
    path_a: `predictions.npz` of the first, as `eval.py` writes it.
    path_b: of the second, of the same videos in any order.

  Raises:
    UserError: a file is missing or of another kind, or they differ in their
      videos or in the videos' classes.
  """
  a, b = _read(path_a), _read(path_b)
  alone = sorted(a.keys() ^ b.keys())
  if alone:
    where = [path_a if name in a else path_b for name in alone[:3]]
    examples = ', '.join(
      f'{name} only in {path}'
      for name, path in zip(alone[:3], where, strict=True)
    )
    raise UserError(
      f'{path_a} and {path_b} are not of the same videos: {len(alone)} are in '
      f'one of them alone, {examples}. Evaluate both runs on the same split, '
      'with every video readable.'
    )
  other = [name for name in a if a[name][0] != b[name][0]]
  if other:
    raise UserError(
      f'{path_a} and {path_b} do not agree on the classes of {len(other)} '
      f'videos, {other[0]} for instance: their runs number the classes in '
      'another way. Evaluate both on the same data.'
    )
  right = [(a[name][1], b[name][1]) for name in a]
  counts = [
    right.count(pair)
    for pair in ((True, True), (True, False), (False, True), (False, False))
  ]
  return mcnemar(*counts)


def _read(path: str | pathlib.Path) -> dict[str, tuple[int, bool]]:
  """Class by video, and whether it was predicted."""
  try:
    with pathlib.Path(path).open('rb') as file, np.load(file) as stored:
      names, labels = stored['ids'].tolist(), stored['labels']
      probabilities = stored['probabilities']
    count, classes = probabilities.shape
    if not (
      labels.dtype.kind in 'iu' and np.isin(labels, range(classes)).all()
    ):
      raise ValueError(f'its labels are not numbers from 0 to {classes - 1}')
    if not np.isfinite(probabilities).all():
      raise ValueError('its probabilities are not all finite')
    right = labels == probabilities.argmax(axis=1)
    found = dict(
      zip(names, zip(labels.tolist(), right, strict=True), strict=True)
    )
    if not len(found) == count > 0:
      raise ValueError(f'it names {len(found)} videos in {count} rows')
  except Exception as error:  # numpy raises anything of damaged files
    raise UserError(
      f'{path} is not what eval.py writes: {error}. Give the '
      'evaluation/predictions.npz of a workdir, or evaluate again.'
    ) from error
  return found


def show(
  comparison: Comparison, console: rich.console.Console | None = None
) -> None:
  """Prints who is right where, both accuracies and the p-value.

  Args:
    comparison: from `compare`.
    console: where to; the terminal if None.
  """
  c, console = comparison, console or rich.console.Console(emoji=False)
  a, b = c.both + c.only_a, c.both + c.only_b
  total = a + c.only_b + c.neither
  table = rich.table.Table('', 'B right', 'B wrong', 'all')
  for name, *row in (
    ('A right', c.both, c.only_a, a),
    ('A wrong', c.only_b, c.neither, total - a),
    ('all', b, total - b, total),
  ):
    table.add_row(name, *map(str, row))
  console.print(table)
  console.print(f'top-1 of A {a / total:.1%}, of B {b / total:.1%}')
  console.print(
    f'McNemar with Edwards correction: chi-square {c.statistic:.3f}, '
    f'p {c.p_value:.2g}'
  )


def main(argv: Sequence[str]) -> None:
  """Compares the two files that follow the program's name.

  Args:
    argv: the command line without flags.

  Raises:
    UserError: there are not two, and as `compare`.
  """
  paths = argv[1:]
  if len(paths) != 2:
    raise UserError(
      f'Two files must be given, not {len(paths)}: python -m '
      'mtnet_jax.analysis.significance A/evaluation/predictions.npz '
      'B/evaluation/predictions.npz.'
    )
  show(compare(*paths))


if __name__ == '__main__':
  cli.run(main, takes_arguments=True)
