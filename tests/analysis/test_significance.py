"""McNemar's test: the published table, sums by hand, and files that differ."""

import csv
import io
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import rich.console

from mtnet_jax.analysis import significance
from mtnet_jax.errors import UserError

_TABLE = 'shared/thesis/tables/table_6_6_mcnemar_k400.csv'


def test_table_6_6(root):
  path = root.parent / _TABLE
  if not path.exists():
    pytest.skip(f"the thesis's table is not beside the repository: {path}")
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 7
  columns = (
    'both_correct', 'cr_only_correct', 'original_only_correct', 'both_incorrect'
  )  # fmt: skip
  for row in rows:
    got = significance.mcnemar(*(int(row[name]) for name in columns))
    # The one is printed rounded to three digits, the other cut off to two.
    assert got.statistic == pytest.approx(float(row['statistic']), abs=5e-4)
    assert got.p_value == pytest.approx(float(row['p_value']), rel=0.05)


@pytest.mark.parametrize(
  ('counts', 'statistic', 'p_value'),
  [
    ((5, 15, 5, 7), 81 / 20, 0.0441713),
    ((0, 1, 0, 0), 0, 1),
    ((9, 4, 4, 2), 0, 1),
    ((9, 0, 0, 2), 0, 1),
    ((0, 25, 0, 0), 24**2 / 25, 1.5857e-6),
  ],
)
def test_by_hand(counts, statistic, p_value):
  for order in (counts, (counts[0], counts[2], counts[1], counts[3])):
    got = significance.mcnemar(*order)
    assert got.statistic == pytest.approx(statistic)
    assert got.p_value == pytest.approx(p_value, rel=1e-3)
  assert (got.both, got.only_a, got.only_b, got.neither) == order


def _write(path, right, ids, labels=None):
  """Predictions of three classes, right where told."""
  labels = np.arange(len(ids)) % 3 if labels is None else np.array(labels)
  guess = (labels + ~np.array(right)) % 3
  np.savez(path, ids=ids, labels=labels, probabilities=np.eye(3)[guess])
  return path


@pytest.fixture
def files(tmp_path):
  """The same six videos in another order; A has four right, B three."""
  a = _write(
    tmp_path / 'a.npz',
    [True, True, True, True, False, False],
    ['u', 'v', 'w', 'x', 'y', 'z'],
  )
  b = _write(
    tmp_path / 'b.npz',
    [False, True, True, False, True, False],
    ['z', 'y', 'u', 'v', 'w', 'x'],
    [2, 1, 0, 1, 2, 0],
  )
  return a, b


def test_two_files(files):
  got = significance.compare(*files)
  assert (got.both, got.only_a, got.only_b, got.neither) == (2, 2, 1, 1)
  text = io.StringIO()
  significance.show(got, rich.console.Console(file=text, width=100))
  lines = text.getvalue().splitlines()
  cells = [line.strip('│ ').split('│') for line in lines if '│' in line]
  rows = {name.strip(): [int(cell) for cell in row] for name, *row in cells}
  assert rows == {
    'A right': [2, 2, 4], 'A wrong': [1, 1, 2], 'all': [3, 3, 6]
  }  # fmt: skip
  assert 'top-1 of A 66.7%, of B 50.0%' in lines
  assert 'chi-square 0.000, p 1' in lines[-1]


def test_files_that_cannot_be_compared(files, tmp_path):
  a, _ = files
  shorter = _write(tmp_path / 'c.npz', [True, True], ['u', 'other'])
  with pytest.raises(
    UserError, match=r'same videos: 6 are .*other only in .*c'
  ):
    significance.compare(a, shorter)
  renumbered = _write(
    tmp_path / 'd.npz', [True] * 6, list('uvwxyz'), [0, 1, 2, 0, 1, 1]
  )
  with pytest.raises(UserError, match='classes of 1 videos, z for instance'):
    significance.compare(a, renumbered)
  with pytest.raises(UserError, match=r'gone\.npz is not what eval\.py writes'):
    significance.compare(a, tmp_path / 'gone.npz')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 no archive', b'text'])
def test_files_of_another_kind(content, tmp_path, files):
  path = tmp_path / 'other.npz'
  path.write_bytes(content)
  with pytest.raises(UserError, match=r'is not what eval\.py writes'):
    significance.compare(files[0], path)


def test_arrays_that_are_no_predictions(tmp_path, files):
  np.save(tmp_path / 'one.npy', np.zeros(3))
  np.savez(tmp_path / 'others.npz', ids=['a'])
  np.savez(tmp_path / 'pickled.npz', ids=np.array([{}], object))
  names, labels = ['a', 'b'], np.array([0, 1])
  scores = np.eye(2)
  wrong = {
    'nan': (names, labels, np.where(scores, np.nan, 0)),
    'short': (names, labels[:1], scores),
    'flat': (names, labels, np.zeros(2)),
    'none': ([], labels[:0], scores[:0]),
    'twice': (['a', 'a'], labels, scores),
    'words': (names, ['0', '1'], scores),
    'beyond': (names, labels + 1, scores),
    'nested': ([['a'], ['b']], labels, scores),
  }
  for name, arrays in wrong.items():
    arrays = dict(zip(('ids', 'labels', 'probabilities'), arrays, strict=True))
    np.savez(tmp_path / f'{name}.npz', **arrays)
  wrong = [f'{name}.npz' for name in wrong]
  for name in ('one.npy', 'others.npz', 'pickled.npz', *wrong):
    with pytest.raises(UserError, match=r'is not what eval\.py writes'):
      significance.compare(files[0], tmp_path / name)


def test_the_command(root, files):
  def run(*paths: pathlib.Path):
    return subprocess.run(
      [sys.executable, '-m', 'mtnet_jax.analysis.significance', *paths],
      cwd=root,
      capture_output=True,
      text=True,
    )

  done = run(*files)
  assert done.returncode == 0 and 'top-1 of A 66.7%' in done.stdout, done.stderr
  done = run(files[0])
  assert done.returncode == 2 and 'Two files must be given' in done.stderr
