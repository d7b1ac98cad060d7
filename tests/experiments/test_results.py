"""Intervals, pooled McNemar, Holm, and the files of a table, by hand."""

import csv
import json
import math

import pytest

from mtnet_jax.analysis import significance
from mtnet_jax.errors import UserError
from mtnet_jax.experiments import plan, results, statistics, summary
from tests.experiments.stub_runs import make_plan, write_run

# Four videos; what each run has right, by seed.
_RIGHT = {
  'avg': [(1, 1, 0, 0), (1, 0, 0, 0)],
  'max': [(1, 0, 1, 1), (1, 1, 1, 0)],
  'softpool+cos': [(1, 1, 1, 1), (1, 1, 1, 0)],
}


@pytest.fixture
def cheap(monkeypatch):
  monkeypatch.setattr(results, '_cost', lambda model, shape: (1_234, 5 * 10**8))


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


def test_counts_of_seeds_are_summed():
  seeds = [significance.mcnemar(*c) for c in ((9, 4, 1, 2), (8, 7, 0, 1))]
  got = statistics.pool(seeds)
  assert (got.both, got.only_a, got.only_b, got.neither) == (17, 11, 1, 3)
  assert got.statistic == pytest.approx((11 - 1 - 1) ** 2 / 12)


def test_a_line_a_run(table):
  scored = {job: summary.read_predictions(job) for job in table.jobs}
  scored = {job: found for job, found in scored.items() if found}
  lines = {line.run: line for line in summary.summarize(table, scored)}
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
  assert both.statistic == (4 - 1) ** 2 / 4  # p 0.1336

  alone = lines['max']
  assert alone.seeds == (0,) and alone.seed_interval is None
  assert (alone.comparison.only_a, alone.comparison.only_b) == (1, 0)
  assert alone.comparison.p_value == 1
  assert avg.holm_p == pytest.approx(2 * 0.1336, rel=1e-3)
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
    'config': plan.digest(table.jobs[0]),
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
    '| avg | 37.5 | 158.8 | 76.2 | 50.0, 25.0 | softpool+cos 4, this 0 | 0.13 '
    '| 0.27 |',
    '| max | 75.0 | – | 79.6 | 75.0 | softpool+cos 1, this 0 | 1 | 1 |',
    '| softpool+cos | 87.5 | 158.8 | 39.8 | 100.0, 75.0 | – | – | – |',
  ]
  assert lines[-1] == 'Failed: max, seed 1: The loss at step 3 is nan.'
  assert (table.out / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_a_table_that_has_just_begun(tmp_path, cheap):
  table = make_plan(tmp_path, runs=['avg', 'max'])
  write_run(table.jobs[0], [True] * 4)
  results.write(table, {})
  text = (tmp_path / 'table.md').read_text()
  assert '| max | – | – | – | – | – | – | – |' in text
  assert text.endswith('Not finished: 3 of 4 runs.\n')


def test_what_a_network_costs(tmp_path):
  table = make_plan(tmp_path, '6.4', seeds=[0], runs=['without', 'whole'])
  for job in table.jobs:
    write_run(job, [True] * 4)
  results.write(table, {})
  with (tmp_path / 'results.csv').open() as file:
    without, whole = csv.DictReader(file)
  # A map a stage from the classifier's 128 channels to those of the stage.
  maps = int(whole['parameters']) - int(without['parameters'])
  assert maps == 19_456
  # Each of 3 classes to a map, and from it to a score.
  more = float(whole['gmacs']) - float(without['gmacs'])
  assert more == pytest.approx(3 * (maps + maps / 128) / 1e9, abs=1e-6)


def test_runs_of_other_videos_are_not_compared(table, cheap):
  write_run(table.jobs[0], [True] * 5)
  with pytest.raises(UserError, match='not of the same videos'):
    results.write(table, {})
