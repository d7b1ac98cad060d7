"""McNemar's test: the published table, sums by hand, and files that differ."""

import csv
import io

import matplotlib.colors
import numpy as np
import pytest
import rich.console

from mtnet_jax.analysis import paired, significance
from mtnet_jax.errors import UserError
from tests import command_line

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
    got = paired.mcnemar(*(int(row[name]) for name in columns))
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
    got = paired.mcnemar(*order)
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
  got = paired.compare(*files)
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
    paired.compare(a, shorter)
  renumbered = _write(
    tmp_path / 'd.npz', [True] * 6, list('uvwxyz'), [0, 1, 2, 0, 1, 1]
  )
  with pytest.raises(UserError, match='classes of 1 videos, z for instance'):
    paired.compare(a, renumbered)
  with pytest.raises(
    UserError, match=r'gone\.npz is not what mtnet eval writes'
  ):
    paired.compare(a, tmp_path / 'gone.npz')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 no archive', b'text'])
def test_files_of_another_kind(content, tmp_path, files):
  path = tmp_path / 'other.npz'
  path.write_bytes(content)
  with pytest.raises(UserError, match=r'is not what mtnet eval writes'):
    paired.compare(files[0], path)


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
    with pytest.raises(
      UserError, match=r'is not what mtnet eval writes'
    ) as told:
      paired.compare(files[0], tmp_path / name)
    assert 'allow_pickle' not in str(told.value)
    assert '..' not in str(told.value).replace(str(tmp_path), '')


def test_the_command(files):
  done = command_line.run(significance.COMMAND, *files)
  assert done.code == 0 and 'top-1 of A 66.7%' in done.stdout, done.stderr
  done = command_line.run(significance.COMMAND, files[0])
  assert done.code == 2 and 'Two files must be given' in done.stderr


def test_gains_by_hand(files):
  pair = paired.read_pair(*files)
  # A has u, v, w, x right, B has y, u, w: by class u x, v y, w z.
  rows = significance.per_class(pair, ('k0', 'k1', 'k2'))
  assert [(r.name, r.videos, r.top1_a, r.top1_b, r.gain) for r in rows] == [
    ('k1', 2, 0.5, 0.5, 0.0),
    ('k2', 2, 0.5, 0.5, 0.0),
    ('k0', 2, 1.0, 0.5, -0.5),
  ]
  more = significance.per_class(pair, ('k0', 'k1', 'k2', 'without videos'))
  assert more == rows


def test_equal_gains_stay_in_order():
  # 1/3, of which the shares' differences are 2/3 - 1/3 and 1 - 2/3.
  labels = np.repeat([0, 1, 2], 3)
  right = np.array
  pair = paired.Pair(
    labels,
    right([1, 0, 0, 1, 1, 0, 1, 0, 0], bool),
    right([1, 1, 0, 1, 1, 1, 1, 1, 0], bool),
    3,
  )
  rows = significance.per_class(pair, ('a', 'b', 'c'))
  assert [row.name for row in rows] == ['a', 'b', 'c']


def test_gains_are_written(tmp_path):
  rows = [
    significance.Gain('a, "b"', 4, 1, 2),
    significance.Gain('c', 3, 2, 1),
  ]
  significance.write_gains(rows, tmp_path / 'gains.csv')
  with (tmp_path / 'gains.csv').open(encoding='utf-8') as file:
    written = list(csv.reader(file))
  assert written == [
    ['class', 'videos', 'top1_a', 'top1_b', 'gain'],
    ['a, "b"', '4', '0.2500', '0.5000', '0.2500'],
    ['c', '3', '0.6667', '0.3333', '-0.3333'],
  ]


@pytest.mark.parametrize('classes', [1, 40, 41, 90])
def test_gains_are_drawn(classes, tmp_path):
  rows = [
    significance.Gain(f'${i}' * 30, 180, 90, 180 - 180 * i // classes)
    for i in range(classes)
  ]
  figure = significance.draw_gains(rows)
  figure.savefig(tmp_path / 'gains.png')
  everything = [bar.get_width() for bar in figure.axes[0].patches]
  expected = [100 * (90 - 180 * i // classes) / 180 for i in range(classes)]
  np.testing.assert_allclose(everything, expected)
  named = [len(axes.patches) for axes in figure.axes[1:]]
  assert named == ([] if classes <= 40 else [20, 20])


def test_bars_by_hand():
  rows = [
    significance.Gain('better in B', 4, 1, 3),
    significance.Gain('x' * 40, 5, 2, 2),
    significance.Gain('worse-in-B' * 5, 10, 9, 6),
  ]
  figure = significance.draw_gains(rows)
  (axes,) = figure.axes
  assert [bar.get_width() for bar in axes.patches] == [50, 0, -30]
  colors = [bar.get_facecolor() for bar in axes.patches]
  assert colors == [
    matplotlib.colors.to_rgba(c) for c in ('tab:blue', '0.7', 'tab:red')
  ]
  assert [text.get_text() for text in axes.get_yticklabels()] == [
    'better in B (4)',
    f'{"x" * 40} (5)',
    f'{"worse-in-B" * 3}worse-in-… (10)',
  ]
  assert figure.get_suptitle() == '1 classes gain, 1 lose, 1 stay'


def test_names_of_the_classes(files, tmp_path, capsys):
  workdir = tmp_path / 'run'
  (workdir / 'evaluation').mkdir(parents=True)
  a = files[0].rename(workdir / 'evaluation/predictions.npz')
  argv, png = [a, files[1]], str(tmp_path / 'new/gains.png')
  with pytest.raises(UserError, match=r'not in .*run/labels\.txt'):
    significance.main(argv, png, None)
  (workdir / 'labels.txt').write_text('k0\nk1\nk2\n')
  significance.main(argv, png, None)
  assert 'new/gains.png' in capsys.readouterr().out
  lines = (tmp_path / 'new/gains.csv').read_text().splitlines()
  assert lines[3] == 'k0,2,1.0000,0.5000,-0.5000'
  other = tmp_path / 'other.txt'
  other.write_text('k0\nk1\n')
  with pytest.raises(
    UserError, match='names 2 classes, the predictions have 3'
  ):
    significance.main(argv, png, str(other))
  with pytest.raises(UserError, match=r'ends in \.png'):
    significance.main(argv, str(tmp_path / 'gains.svg'), None)
  for folder in ('a.png', 'b.csv'):
    (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=f'{folder} is a folder'):
      significance.main(argv, str(tmp_path / f'{folder[0]}.png'), None)


def test_runs_of_other_numbers_of_classes(files, tmp_path):
  scores = np.eye(4)[[0, 1, 2, 0, 1, 2]]
  path = tmp_path / 'four.npz'
  np.savez(
    path, ids=list('uvwxyz'), labels=np.arange(6) % 3, probabilities=scores
  )
  with pytest.raises(UserError, match=r'of 3 classes, .*of 4'):
    paired.compare(files[0], path)
