"""Calibration, by hand and by loops."""

import functools
import math

import numpy as np
import pytest

from mtnet_jax.analysis import calibration
from mtnet_jax.errors import UserError
from tests import command_line

# Confidence 0.6 and 0.7 in (0.5, 0.75], 0.8, 1 and 0.9 in (0.75, 1]; right are
# the first, the third and the fourth.
PROBABILITIES = np.array(
  [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [1.0, 0.0], [0.9, 0.1]], np.float32
)
LABELS = np.array([0, 0, 1, 0, 1])


def test_by_hand():
  got = calibration.calibrate(PROBABILITIES, LABELS, bins=4)
  assert got.counts.tolist() == [0, 0, 2, 3]
  np.testing.assert_allclose(
    got.bin_confidence, [np.nan, np.nan, 0.65, 0.9], rtol=1e-6
  )
  np.testing.assert_allclose(
    got.bin_accuracy, [np.nan, np.nan, 1 / 2, 2 / 3], rtol=1e-12
  )
  assert got.accuracy == 3 / 5
  assert got.confidence == pytest.approx(4.0 / 5)
  gaps = 0.15, 0.9 - 2 / 3
  assert got.expected_error == pytest.approx((2 * gaps[0] + 3 * gaps[1]) / 5)
  assert got.maximum_error == pytest.approx(gaps[1])
  own = 0.6, 0.3, 0.8, 1.0, 0.1
  assert got.negative_log_likelihood == pytest.approx(
    -sum(map(math.log, own)) / 5
  )
  # Of two classes each misses by as much.
  brier = sum(2 * (1 - p) ** 2 for p in own) / 5
  assert got.brier == pytest.approx(brier, rel=1e-6)


def test_a_single_bin_has_the_difference_of_means():
  got = calibration.calibrate(PROBABILITIES, LABELS, bins=1)
  assert got.expected_error == pytest.approx(got.maximum_error)
  assert got.expected_error == pytest.approx(abs(got.accuracy - got.confidence))


def test_edges_belong_to_the_bin_below():
  edges = np.arange(8, 16) / 15
  probabilities = np.stack([edges, 1 - edges], axis=1)
  got = calibration.calibrate(probabilities, np.zeros(8, int), bins=15)
  assert got.counts.tolist() == [0] * 7 + [1] * 8
  above = np.nextafter(edges[:-1], 1)
  probabilities = np.stack([above, 1 - above], axis=1)
  got = calibration.calibrate(probabilities, np.zeros(7, int), bins=15)
  assert got.counts.tolist() == [0] * 8 + [1] * 7


def test_a_confidence_that_rounding_put_above_one():
  probabilities = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]])
  got = calibration.calibrate(probabilities, np.array([0]), bins=10)
  assert got.counts.tolist() == [0] * 9 + [1]
  assert got.expected_error < 1e-6


def test_a_class_of_probability_zero():
  got = calibration.calibrate(np.eye(2, dtype=np.float32), np.array([1, 1]))
  tiny = float(np.finfo(np.float32).tiny)
  assert got.negative_log_likelihood == pytest.approx(-math.log(tiny) / 2)
  assert got.brier == 1 and got.expected_error == 0.5


@pytest.mark.parametrize('sure', [1, np.nextafter(np.float32(1), 2)])
def test_a_single_class(sure):
  probabilities = np.full((2, 1), sure, np.float32)
  got = calibration.calibrate(probabilities, np.array([0, 0]))
  assert f'{got.negative_log_likelihood:.3f}' == '0.000'


def test_bars_by_hand():
  found = calibration.calibrate(PROBABILITIES, LABELS, bins=4)
  (panel,) = calibration.draw({'a': found}).subfigs
  accuracy, counts = panel.axes
  assert [bar.get_height() for bar in counts.patches] == [0, 0, 2, 3]
  # The two bins with videos: 0.65 sure and 1/2 right, 0.9 sure and 2/3 right.
  by_kind = zip(*[iter(accuracy.patches)] * 4, strict=True)
  for bars, base, height in zip(
    by_kind,
    ([0, 0], [1 / 2, 2 / 3], [1 / 2, 2 / 3]),
    ([1 / 2, 2 / 3], [0.15, 0.9 - 2 / 3], [0, 0]),
    strict=True,
  ):
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [
      (0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25)
    ]  # fmt: skip
    np.testing.assert_allclose([b.get_y() for b in bars], [0, 0, *base])
    np.testing.assert_allclose(
      [b.get_height() for b in bars], [0, 0, *height], atol=1e-7
    )


def test_loops():
  rng = np.random.default_rng(0)
  probabilities = rng.dirichlet(np.full(7, 0.3), 300)
  labels = rng.integers(0, 7, 300)
  bins = 9
  rows = [[] for _ in range(bins)]
  brier = likelihood = 0.0
  for p, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
    confidence = max(p)
    right = p.index(confidence) == label
    rows[math.ceil(confidence * bins) - 1].append((confidence, right))
    brier += sum((q - (k == label)) ** 2 for k, q in enumerate(p)) / 300
    likelihood -= math.log(p[label]) / 300
  gaps = [
    abs(sum(c - r for c, r in row)) / len(row) if row else 0 for row in rows
  ]
  got = calibration.calibrate(probabilities, labels, bins)
  assert got.counts.tolist() == [len(row) for row in rows]
  assert got.expected_error == pytest.approx(
    sum(len(row) * gap for row, gap in zip(rows, gaps, strict=True)) / 300
  )
  assert got.maximum_error == pytest.approx(max(gaps))
  assert got.brier == pytest.approx(brier)
  assert got.negative_log_likelihood == pytest.approx(likelihood)


@pytest.fixture
def files(tmp_path):
  """Two evaluations."""
  paths = [tmp_path / 'a$b.npz', tmp_path / 'other.npz']
  for path, labels in zip(paths, (LABELS, 1 - LABELS), strict=True):
    np.savez(
      path, ids=list('vwxyz'), labels=labels, probabilities=PROBABILITIES
    )
  return paths


def test_the_command(files, tmp_path):
  png = tmp_path / 'new/reliability.png'
  run = functools.partial(command_line.run, calibration.COMMAND)
  done = run(*files, '--bins=4', f'--out={png}')
  assert done.code == 0, done.stderr
  row = next(r for r in done.stdout.splitlines() if 'top-1' in r)
  assert [cell.strip() for cell in row.strip('│ ').split('│')][1:] == [
    '60.0%', '40.0%'
  ]  # fmt: skip
  assert png.read_bytes().startswith(b'\x89PNG')
  done = run(files[0], '--bins=1001')
  assert done.code == 2 and '--bins' in done.stderr


def test_mistakes(files, tmp_path):
  with pytest.raises(UserError, match='must be given, not 0'):
    calibration.main([], 15, None)
  with pytest.raises(UserError, match='several different ones'):
    calibration.main([files[0], files[0]], 15, None)
  with pytest.raises(UserError, match=r'ends in \.png'):
    calibration.main([files[0]], 15, str(tmp_path / 'x.pdf'))
  (tmp_path / 'x.png').mkdir()
  with pytest.raises(UserError, match=r'x\.png is a folder'):
    calibration.main([files[0]], 15, str(tmp_path / 'x.png'))
  logits = tmp_path / 'logits.npz'
  np.savez(logits, ids=['a'], labels=[0], probabilities=[[3.0, -1.0]])
  with pytest.raises(UserError, match='are no probabilities'):
    calibration.main([logits], 15, None)
