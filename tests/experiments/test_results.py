"""Intervals, pooled McNemar, Holm, and the files of a table, by hand."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest

from mtnet_jax.analysis import cost, paired
from mtnet_jax.analysis.paired import Pair
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation.predictions import Predictions, write_predictions
from mtnet_jax.experiments import plot, results, scored, statistics, summary
from tests.experiments.stub_runs import NAMES, make_plan, write_run

# Four videos; what each run has right, by seed.
_RIGHT = {
  'avg': [(1, 1, 0, 0), (1, 0, 0, 0)],
  'max': [(1, 0, 1, 1), (1, 1, 1, 0)],
  'softpool+cos': [(1, 1, 1, 1), (1, 1, 1, 0)],
}


@pytest.fixture
def cheap(monkeypatch):
  costs = cost.ModuleCosts(1_234, 5 * 10**8, 0)
  monkeypatch.setattr(results, '_cost', lambda *_: costs)


@pytest.fixture
def table(tmp_path):
  """A table of which two runs are finished and one has one seed."""
  table = make_plan(tmp_path, runs=_RIGHT)
  for job in table.jobs:
    if (job.run, job.seed) != ('max', 1):
      write_run(job, [bool(hit) for hit in _RIGHT[job.run][job.seed]])
  return table


def test_half_of_an_interval():
  # Two values: t of one degree of freedom is 12.7062, s / √2 half their
  # distance.
  assert statistics.half_interval([0.5, 0.25]) == pytest.approx(
    12.7062 * 0.125, rel=1e-5
  )
  # Three: t of two degrees is 4.30265, s = 1.
  assert statistics.half_interval([1, 2, 3]) == pytest.approx(
    4.30265 / math.sqrt(3), rel=1e-5
  )
  assert statistics.half_interval([1]) is None


def test_holm():
  # 3 × 0.01, 2 × 0.03, and 0.04 which may not get below the one before.
  got = statistics.holm({'c': 0.04, 'a': 0.01, 'b': 0.03})
  assert list(got) == ['c', 'a', 'b']
  assert got == pytest.approx({'a': 0.03, 'b': 0.06, 'c': 0.06})
  assert statistics.holm({'a': 0.6, 'b': 0.7}) == {'a': 1.0, 'b': 1.0}
  assert statistics.holm({}) == {}


def test_seeds_are_summed_by_video():
  def pair(right_a, right_b):
    n = len(right_a)
    return Pair(np.zeros(n, int), *np.array([right_a, right_b], bool), 2)

  names = [*'wxyz']
  first = names, pair([1, 1, 0, 1], [0, 0, 1, 1])  # d: -1, -1, 1, 0
  assert statistics.pool([first]) == paired.compare_pair(first[1])
  # In another order, and of three of the videos.
  second = ['x', 'w', 'y'], pair([1, 1, 1], [0, 0, 1])  # w, x, y: -1, -1, 0
  got = statistics.pool([first, second])
  assert (got.both, got.only_a, got.only_b, got.neither) == (2, 4, 1, 0)
  # Of w, x, y and z: -2, -2, 1 and 0.
  assert got.statistic == pytest.approx((3 - 1) ** 2 / 9)
  assert got.p_value == pytest.approx(0.50499, abs=1e-5)


def _summarize(table):
  found = {job: scored.read(job.workdir) for job in table.jobs}
  return summary.summarize(table, {j: p for j, p in found.items() if p})


def test_a_line_a_run(table):
  lines = {line.run: line for line in _summarize(table)}
  assert list(lines) == ['avg', 'max', 'softpool+cos']

  avg = lines['avg']
  assert avg.seeds == (0, 1) and avg.top1 == (0.5, 0.25)
  assert avg.mean == 0.375
  assert avg.seed_interval == pytest.approx(12.7062 * 0.125, rel=1e-5)
  # The seeds' shares of the videos are 1, 1/2, 0, 0: variance 11/48, and t of
  # three degrees of freedom is 3.18245.
  assert avg.video_interval == pytest.approx(
    3.18245 * math.sqrt(11 / 48 / 4), rel=1e-5
  )
  # The reference alone: videos c and d with seed 0, b and c with seed 1.
  both = avg.comparison
  assert (both.both, both.only_a, both.only_b, both.neither) == (3, 4, 0, 1)
  # c twice, and each of the others once.
  assert both.statistic == (4 - 1) ** 2 / (1 + 4 + 1)  # p 0.2207

  alone = lines['max']
  assert alone.seeds == (0,) and alone.seed_interval is None
  assert (alone.comparison.only_a, alone.comparison.only_b) == (1, 0)
  assert alone.comparison.p_value == 1
  assert avg.holm_p == pytest.approx(2 * 0.2207, rel=1e-3)
  assert alone.holm_p == 1
  assert lines['softpool+cos'].comparison is None


def test_the_files_of_a_table(table, cheap):
  results.write(table, {('max', 1): 'The loss at step 3 is nan.'})
  with (table.out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [(row['run'], row['seed']) for row in rows] == [
    ('avg', '0'), ('max', '0'), ('softpool+cos', '0'),
    ('avg', '1'), ('softpool+cos', '1'),
  ]  # fmt: skip
  assert rows[0] == {
    'run': 'avg',
    'seed': '0',
    'top1': '0.500000',
    'top5': '1.000000',
    'videos': '4',
    'training_seconds': '2.2',
    'steps': '7',
    'parameters': '1234',
    'gmacs': '0.500000',
  }
  found = json.loads((table.out / 'summary.json').read_text())
  assert found['table'] == '5.8'
  assert [run['mean'] for run in found['runs']] == [0.375, 0.75, 0.875]
  assert found['runs'][1]['seed_interval'] is None
  assert found['runs'][0]['comparison']['only_a'] == 4
  assert found['failed'] == [
    {'run': 'max', 'seed': 1, 'why': 'The loss at step 3 is nan.'}
  ]
  lines = (table.out / 'table.md').read_text().splitlines()
  assert lines[0] == '# Table 5.8: poolings of the prolonged branch'
  assert lines[4:7] == [
    '| avg | 37.5 | 158.8 | 76.2 | 50.0, 25.0 | softpool+cos 4, this 0 | 0.22 '
    '| 0.44 |',
    '| max | 75.0 | – | 79.6 | 75.0 | softpool+cos 1, this 0 | 1 | 1 |',
    '| softpool+cos | 87.5 | 158.8 | 39.8 | 100.0, 75.0 | – | – | – |',
  ]
  assert lines[-1] == 'Failed: max, seed 1: The loss at step 3 is nan.'
  assert found['not_scored'] == []
  assert (table.out / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_the_picture_of_a_table(table):
  (axes,) = plot.make_figure(table, _summarize(table)).axes
  # As table.md has them: avg, max of a single seed, softpool+cos.
  means, video, seed = (37.5, 75, 87.5), (76.17, 79.56, 39.78), 158.83
  by_label = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))

  def check(label, bars):
    ends = by_label[label].get_segments()
    expected = [[[x, mean - half], [x, mean + half]] for x, mean, half in bars]
    np.testing.assert_allclose(ends, expected, atol=0.01)

  check('95 %, other videos', zip(range(3), means, video, strict=True))
  check('95 %, training again', [(0, 37.5, seed), (2, 87.5, seed)])
  dashes = by_label['mean'].get_xydata()
  assert dashes.tolist() == [[0, 37.5], [1, 75], [2, 87.5]]
  x, top1 = by_label['of each seed'].get_xydata().T
  assert top1.tolist() == [50, 25, 75, 100, 75]
  assert x.round().tolist() == [0, 0, 1, 2, 2]
  assert [tick.get_text() for tick in axes.get_xticklabels()] == list(_RIGHT)
  assert axes.get_ylim() == (-2, 102)  # not to where there is no accuracy


def test_a_table_that_has_just_begun(tmp_path, cheap):
  table = make_plan(tmp_path, runs=['avg', 'max'])
  write_run(table.jobs[0], [True] * 4)
  results.write(table, {})
  text = (tmp_path / 'table.md').read_text()
  assert '| max | – | – | – | – | – | – | – |' in text
  assert text.endswith('Not finished: 3 of 4 runs.\n')


def test_what_a_network_costs(tmp_path, monkeypatch):
  count, traced = cost.count, []

  def counting(model, clip_shape):
    traced.append(model)
    return count(model, clip_shape)

  monkeypatch.setattr(cost, 'count', counting)
  table = make_plan(tmp_path, '6.4', seeds=[0], runs=['without', 'whole'])
  for job in table.jobs:
    write_run(job, [True] * 4)
  results.write(table, {})
  with (tmp_path / 'results.csv').open() as file:
    without, whole = csv.DictReader(file)
  # A map a stage from the classifier's 128 channels to those of the stage.
  assert len(traced) == 2
  maps = int(whole['parameters']) - int(without['parameters'])
  assert maps == 19_456
  # Each of 3 classes to a map, and from it to a score.
  more = float(whole['gmacs']) - float(without['gmacs'])
  assert more == pytest.approx(3 * (maps + maps / 128) / 1e9, abs=1e-6)


def test_videos_that_one_run_could_not_score(table, cheap):
  job = table.jobs[0]  # avg with seed 0
  found = scored.read(job.workdir)
  keep = [3, 1]  # 'd' and 'b', in another order
  lost = Predictions(
    found.ids[keep], found.labels[keep], found.probabilities[keep], {}
  )
  write_predictions(lost, NAMES, job.workdir / 'evaluation')
  scored.mark(job.workdir, step=7)
  results.write(table, {})
  avg, *_ = _summarize(table)
  assert avg.top1 == (0.5, 0.25)
  # With seed 0 'b' is right in both, 'd' in the reference alone; with seed 1
  # 'a' in both, 'b' and 'c' in the reference alone, 'd' in none.
  both = avg.comparison
  assert (both.both, both.only_a, both.only_b, both.neither) == (2, 3, 0, 1)
  text = (table.out / 'table.md').read_text()
  assert text.endswith(
    'Not scored: avg, seed 0: 2 of the videos that others scored: a, c\n'
  )
  files = json.loads((table.out / 'summary.json').read_text())
  assert files['not_scored'] == [
    {'run': 'avg', 'seed': 0, 'videos': ['a', 'c']}
  ]
  # More than three are not all named.
  write_run(table.jobs[1], [True] * 6)
  results.write(table, {})
  text = (table.out / 'table.md').read_text()
  assert 'avg, seed 0: 4 of the videos that others scored: a, c, e, …\n' in text


def _rename(found):
  return dataclasses.replace(found, ids=np.array(['w', 'x', 'y', 'z']))


def _number_anew(found):
  return dataclasses.replace(found, labels=found.labels[::-1])


def _add_a_class(found):
  more = np.pad(found.probabilities, ((0, 0), (0, 1)))
  return dataclasses.replace(found, probabilities=more)


@pytest.mark.parametrize('change', [_rename, _number_anew, _add_a_class])
def test_runs_on_other_data_are_not_compared(change, table, cheap):
  workdir = table.jobs[0].workdir
  found = change(scored.read(workdir))
  write_predictions(found, [*NAMES, 'new'], workdir / 'evaluation')
  scored.mark(workdir, step=7)
  with pytest.raises(UserError, match='not scored on the same data'):
    results.write(table, {})
