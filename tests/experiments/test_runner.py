"""The order of a table's runs, what is repeated, and what goes wrong."""

import csv
import logging
import os
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from mtnet_jax.analysis import cost
from mtnet_jax.errors import RESUME, UserError
from mtnet_jax.evaluation import predictions as predictions_lib
from mtnet_jax.evaluation.predictions import write_predictions
from mtnet_jax.experiments import plan, results, runner, scored
from mtnet_jax.runs.checkpoints import UnsavedError
from tests.experiments.stub_runs import (
  NAMES,
  make_plan,
  predict,
  write_run,
  write_training,
)
from tests.tiny_runs import LIGHT, TINY, tiny_config


class _Trainer:
  """Trains and scores in no time; does what a test wants of a run instead.

  Attributes:
    done: what was asked for, `('train', 'avg', 0)` for instance.
    starts: `train.init_from` of each training, by run and seed.
    instead: what to call by run and seed.
  """

  def __init__(self):
    self.done, self.starts, self.instead = [], {}, {}
    self._jobs = {}

  def use(self, table):
    self._jobs = {job.workdir: job for job in table.jobs}
    return table

  def train(self, config, workdir):
    job = self._jobs[workdir]
    assert config.is_locked and config.seed == job.seed
    self.done.append(('train', job.run, job.seed))
    self.starts[job.run, job.seed] = config.train.init_from
    self.instead.get((job.run, job.seed), lambda: None)()
    write_training(job, config)
    (workdir / 'checkpoints' / '7').mkdir(parents=True, exist_ok=True)

  def evaluate(self, config, workdir, checkpoint):
    assert checkpoint == 'last'
    job = self._jobs[workdir]
    assert config.model == job.config.model
    self.done.append(('evaluate', job.run, job.seed))
    return predict([True, False, True, job.run == 'max']), NAMES


@pytest.fixture
def trainer(monkeypatch):
  trainer = _Trainer()
  monkeypatch.setattr(runner.loop, 'train', trainer.train)
  monkeypatch.setattr(runner.scoring, 'evaluate', trainer.evaluate)
  monkeypatch.setattr(
    runner.report,
    'write',
    lambda found, names, workdir: write_predictions(
      found, names, workdir / 'evaluation'
    ),
  )
  for name in ('build', 'build_evaluation'):
    monkeypatch.setattr(runner.pipeline, name, lambda *_: None)
  costs = cost.ModuleCosts(1, 1, 1)
  monkeypatch.setattr(results, '_cost', lambda *_: costs)
  monkeypatch.setattr(results.plot, 'draw', lambda *_: None)
  return trainer


def _table(trainer, out, table='5.8', runs=('avg', 'max')):
  return trainer.use(make_plan(out, table, runs=runs))


def _rows(out):
  with (out / 'results.csv').open() as file:
    return list(csv.DictReader(file))


def test_every_run_is_trained_scored_and_written(trainer, tmp_path, caplog):
  rows = []
  for key in (('max', 0), ('avg', 1), ('max', 1)):
    trainer.instead[key] = lambda: rows.append(len(_rows(tmp_path)))
  with caplog.at_level(logging.INFO, 'absl'):
    assert runner.run(_table(trainer, tmp_path)) == {}
  assert trainer.done == [
    (what, run, seed)
    for seed in (0, 1)
    for run in ('avg', 'max')
    for what in ('train', 'evaluate')
  ]
  assert rows == [1, 2, 3]  # after each run
  told = [r.getMessage() for r in caplog.records if 'run ' in r.getMessage()]
  assert told[0] == 'run 1 of 4: avg, seed 0'
  assert told[3].startswith('run 4 of 4: max, seed 1; about 0:0')
  assert set(trainer.starts.values()) == {''}


def test_what_is_finished_is_not_repeated(trainer, tmp_path):
  table = _table(trainer, tmp_path)
  first, second, third, _ = table.jobs
  write_run(first, [True] * 4)
  write_training(second)  # without its evaluation
  write_training(third)  # scored half-way, by eval.py
  write_predictions(predict([True] * 4), NAMES, third.workdir / 'evaluation')
  runner.run(table)
  begun = [(run, seed) for what, run, seed in trainer.done if what == 'train']
  assert begun == [('max', 0), ('avg', 1), ('max', 1)]
  assert len(_rows(tmp_path)) == 4

  trainer.done.clear()
  before = (tmp_path / 'results.csv').read_bytes()
  (tmp_path / 'table.md').unlink()
  assert runner.run(table) == {}
  assert trainer.done == []
  assert (tmp_path / 'results.csv').read_bytes() == before
  assert (tmp_path / 'table.md').exists()


def test_what_eval_py_has_overwritten_is_scored_again(trainer, tmp_path):
  table = _table(trainer, tmp_path, runs=['avg'])
  runner.run(table)
  before = (tmp_path / 'results.csv').read_bytes()
  first, second = (job.workdir for job in table.jobs)
  # The best checkpoint's predictions, and the last's once more.
  write_predictions(predict([True] * 4), NAMES, first / 'evaluation')
  write_predictions(scored.read(second), NAMES, second / 'evaluation')
  assert scored.read(first) is None
  trainer.done.clear()
  runner.run(table)
  assert trainer.done == [('train', 'avg', 0), ('evaluate', 'avg', 0)]
  assert (tmp_path / 'results.csv').read_bytes() == before

  (first / 'scored.json').write_text('{"step": ')  # torn
  assert scored.read_step(first) is None and scored.read_step(second) == 7


@pytest.mark.parametrize('scored_before', [False, True])
def test_interrupted_between_the_files_of_an_evaluation(
  scored_before, trainer, tmp_path, monkeypatch
):
  table = _table(trainer, tmp_path, runs=['avg'])
  directory = table.jobs[0].workdir / 'evaluation'
  if scored_before:  # and overwritten: the first file is as it was marked
    runner.run(table)
    write_predictions(predict([True] * 4), NAMES, directory)

  def interrupt(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(predictions_lib, 'per_class', interrupt)
    runner.run(table)
  assert (directory / 'predictions.npz').exists()
  assert len((directory / 'per_class.csv').read_text().splitlines()) == 1
  trainer.done.clear()
  runner.run(table)
  assert trainer.done[:2] == [('train', 'avg', 0), ('evaluate', 'avg', 0)]
  assert len((directory / 'per_class.csv').read_text().splitlines()) == 4


def test_interrupted_it_goes_on(trainer, tmp_path):
  def interrupt():
    raise KeyboardInterrupt

  trainer.instead['avg', 1] = interrupt
  with pytest.raises(KeyboardInterrupt):
    runner.run(_table(trainer, tmp_path))
  assert [row['seed'] for row in _rows(tmp_path)] == ['0', '0']
  trainer.instead.clear()
  trainer.done.clear()
  runner.run(_table(trainer, tmp_path))
  assert trainer.done[0] == ('train', 'avg', 1) and len(trainer.done) == 4


def test_another_configuration_stops_everything(trainer, tmp_path):
  table = _table(trainer, tmp_path)
  other = table.jobs[3].config.copy_and_resolve_references()
  other.train.num_steps = 8
  write_training(table.jobs[3], other)
  with pytest.raises(UserError, match=r'train\.num_steps was 8, now it is 7'):
    runner.run(table)
  assert trainer.done == []


def test_a_run_that_fails_leaves_the_others(trainer, tmp_path):
  def fail():
    raise UserError('The loss at step 3 is nan. Lower it.')

  trainer.instead['avg', 0] = fail
  failed = runner.run(_table(trainer, tmp_path))
  assert failed == {('avg', 0): 'The loss at step 3 is nan. Lower it.'}
  assert [(row['run'], row['seed']) for row in _rows(tmp_path)] == [
    ('max', '0'), ('avg', '1'), ('max', '1')
  ]  # fmt: skip
  text = (tmp_path / 'table.md').read_text()
  assert 'Failed: avg, seed 0: The loss at step 3 is nan. Lower it.' in text


def test_a_run_that_needs_more_memory_leaves_the_others(trainer, tmp_path):
  def fill():
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of 9 GiB.\nAt x')

  trainer.instead['avg', 0] = fill
  failed = runner.run(_table(trainer, tmp_path))
  assert list(failed) == [('avg', 0)] and len(_rows(tmp_path)) == 3
  text = (tmp_path / 'table.md').read_text()
  assert (
    'Failed: avg, seed 0: A device has too little memory: '
    'RESOURCE_EXHAUSTED: Out of 9 GiB. Give all runs a smaller '
    '--config.train.batch_size'
  ) in text

  def break_down():
    raise jax.errors.JaxRuntimeError('INTERNAL: no kernel image')

  trainer.instead['avg', 0] = break_down
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    runner.run(_table(trainer, tmp_path))


def test_a_full_disk_stops_everything(trainer, tmp_path):
  def fill():
    raise UnsavedError('A checkpoint could not be written.')

  trainer.instead['avg', 0] = fill
  with pytest.raises(UnsavedError):
    runner.run(_table(trainer, tmp_path))
  assert len(trainer.done) == 1


def test_maps_start_from_the_last_checkpoint_without(trainer, tmp_path):
  runs = ('without', 'maps')
  table = _table(trainer, tmp_path, '6.4', runs)
  (table.jobs[2].workdir / 'checkpoints' / '5').mkdir(parents=True)
  assert runner.run(table) == {}
  for seed in (0, 1):
    assert trainer.starts['without', seed] == ''
    assert trainer.starts['maps', seed] == str(
      tmp_path / 'without' / f'seed_{seed}' / 'checkpoints' / '7'
    )
  trainer.done.clear()
  runner.run(_table(trainer, tmp_path, '6.4', runs))
  assert trainer.done == []


def test_maps_start_from_what_is_finished_only(trainer, tmp_path):
  table = _table(trainer, tmp_path, '6.4', ('without', 'maps'))
  without = table.jobs[0]
  write_training(without)
  (without.workdir / 'checkpoints' / '5').mkdir(parents=True)  # half-trained
  runner.run(table)
  assert trainer.done[:3] == [
    ('train', 'without', 0), ('evaluate', 'without', 0), ('train', 'maps', 0)
  ]  # fmt: skip
  assert trainer.starts['maps', 0].endswith('checkpoints/7')

  (without.workdir / 'checkpoints' / '7').rmdir()
  scored.unmark(table.jobs[1].workdir)
  failed = runner.run(table)
  assert f'7 any more: remove {without.workdir} to' in failed['maps', 0]


def test_maps_of_a_run_that_failed(trainer, tmp_path):
  def fail():
    raise UserError('The loss is nan.')

  trainer.instead['without', 0] = fail
  table = _table(trainer, tmp_path, '6.4', ('without', 'maps'))
  (table.jobs[0].workdir / 'checkpoints' / '7').mkdir(parents=True)
  failed = runner.run(table)
  assert list(failed) == [('without', 0), ('maps', 0)]
  assert failed['maps', 0] == (
    "'maps' starts from 'without', which failed; mend that first: The loss is "
    'nan.'
  )
  assert ('train', 'maps', 0) not in trainer.done
  assert ('evaluate', 'maps', 1) in trainer.done


def test_sigterm_between_trainings(trainer, tmp_path):
  before = signal.getsignal(signal.SIGTERM)
  trainer.instead['max', 0] = lambda: os.kill(os.getpid(), signal.SIGTERM)
  with pytest.raises(SystemExit) as end:
    runner.run(_table(trainer, tmp_path))
  assert end.value.code == RESUME
  assert signal.getsignal(signal.SIGTERM) is before
  assert len(_rows(tmp_path)) == 1


def test_what_stops_every_run_is_told_at_once(tmp_path):
  with pytest.raises(UserError, match=r'data\.dir'):
    runner.run(make_plan(tmp_path / 'out', runs=['avg']))
  table = make_plan(tmp_path / 'out', '5.7')
  table.jobs[1].config.model.placement = 'mid'
  with pytest.raises(UserError, match='placement'):
    runner.run(table)
  assert not (tmp_path / 'out').exists()


_SHORT = {'train.num_steps': 2, 'optim.warmup_steps': 1, 'eval.num_crops': 1}
_CHANGES = TINY | LIGHT | _SHORT


def _without_seconds(out):
  return [row | {'training_seconds': ''} for row in _rows(out)]


@pytest.mark.check
def test_the_command_does_what_is_left_as_a_whole_one_would(
  root, blinking_videos, tmp_path
):
  whole, begun = tmp_path / 'whole', tmp_path / 'begun'
  changes = _CHANGES | {'data.dir': str(blinking_videos)}
  config = tiny_config(blinking_videos)
  config.update_from_flattened_dict(changes)
  runs = ('without', 'maps')
  table = plan.make(config, '6.4', whole, runs=runs, seeds=[3], given=changes)
  assert runner.run(table) == {}
  rows = _without_seconds(whole)
  assert [row['steps'] for row in rows] == ['2', '2']

  shutil.copytree(whole / 'without', begun / 'without')
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'mtnet_jax.experiments',
      '--table=6.4',
      '--config=configs/quickstart.py',
      f'--out={begun}',
      '--seeds=3',
      f'--runs={",".join(runs)}',
      *(f'--config.{name}={value}' for name, value in changes.items()),
    ],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'run 1 of 2' not in done.stderr
  assert 'run 2 of 2: maps, seed 3' in done.stderr
  assert 'arrays are taken over' in done.stderr
  assert _without_seconds(begun) == rows
  assert (begun / 'plot.png').exists()


def test_mistakes_in_the_command(root, tmp_path):
  for flags, sentence in (
    (
      ['--table=5.5'],
      'should be one of <4.1|4.5|5.2|5.6|5.7|5.8|6.4|selection|',
    ),
    (['--table=5.8', '--seeds=0,x'], '--seeds=0,x must be whole numbers'),
  ):
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'mtnet_jax.experiments',
        f'--out={tmp_path}',
        '--config=configs/quickstart.py',
        *flags,
      ],
      cwd=root,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 2 and sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
