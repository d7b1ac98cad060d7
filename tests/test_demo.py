"""The demo's own commands on a data set of two videos a class."""

import csv
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from mtnet_jax import cli
from mtnet_jax.commands import demo


def _demo_commands(root, runs):
  """The lines of `make demo`, as make would run them."""
  text = (root / 'Makefile').read_text().replace('\\\n', ' ')
  recipe = re.search(r'^demo:.*\n((?:\t.*\n)+)', text, re.MULTILINE)[1]
  lines = recipe.replace('$(RUNS)', str(runs)).splitlines()
  return [
    line.replace('$(BIN)/python', sys.executable).split() for line in lines
  ]


def test_the_control_runs_by_a_flag(root):
  """The same two commands on the network that is blind to direction."""

  def commands(*flags):
    done = subprocess.run(
      ['make', '--dry-run', 'demo', *flags],
      cwd=root, capture_output=True, text=True, check=True
    )  # fmt: skip
    lines = done.stdout.replace('\\\n', ' ').splitlines()
    return [' '.join(line.split()) for line in lines if '.py' in line]

  plain, with_control = commands(), commands('STATIC=1')
  train, evaluate, _ = plain[-3:]
  assert with_control == [
    *plain,
    *(
      line.replace('quickstart.py', 'quickstart.py:static').replace(
        '--workdir=runs/demo', '--workdir=runs/demo/static'
      )
      for line in (train, evaluate)
    ),
  ]


def test_the_verb_gives_the_commands_of_make(root, monkeypatch):
  """The same flags, in the same order, with configurations by name."""
  given = []

  def call(command, *arguments):
    given.append((command.main.__module__.split('.')[-1], *arguments))
    return 0

  values = flags.FlagValues()
  demo.define_flags(values)
  values(['mtnet demo', '--out=runs/x', '--static'])
  monkeypatch.setattr(cli, 'call', call)
  assert demo.main(values, []) == 0
  done = subprocess.run(
    ['make', '--dry-run', 'demo', 'RUNS=runs/x', 'STATIC=1'],
    cwd=root, capture_output=True, text=True, check=True
  )  # fmt: skip
  lines = done.stdout.replace('\\\n', ' ').splitlines()
  made = []
  for line in lines:
    words = line.replace('-m data.stick_figures.', '').split()
    name = words[1].removesuffix('.py') if words[1:] else ''
    if name in ('prepare', 'train', 'eval', 'explain'):
      named = [re.sub(r'configs/(\w+)\.py', r'\1', w) for w in words[2:]]
      made.append((name, *sorted(named)))
  assert [(name, *sorted(rest)) for name, *rest in given] == made
  assert len(made) == 6


def test_the_verb_ends_with_the_first_failure(monkeypatch):
  called = []
  monkeypatch.setattr(
    cli, 'call', lambda *command: called.append(command) or 75 * len(called[1:])
  )
  values = flags.FlagValues()
  demo.define_flags(values)
  values(['mtnet demo'])
  assert demo.main(values, []) == 75 and len(called) == 2


def _check_predictions(path, videos, names):
  """Checks the file that evaluation wrote, and returns its top-1."""
  with np.load(path) as predictions:
    assert sorted(predictions['ids']) == sorted(videos)
    # The labels say what the file says, by each video's own id.
    for video, label in zip(
      predictions['ids'], predictions['labels'], strict=True
    ):
      assert pathlib.Path(str(video)).parts[1] == names[label]
    assert predictions['probabilities'].shape == (len(names), len(names))
    best = predictions['probabilities'].argmax(axis=1)
    return float((best == predictions['labels']).mean())


@pytest.mark.slow
def test_demo_in_miniature(root, tmp_path):
  runs = tmp_path / 'runs'
  prepare, train, evaluate, explain = _demo_commands(root, runs)
  steps = ['--config.train.num_steps=3', '--config.optim.warmup_steps=1']
  commands = {
    'prepare': [*prepare, '--train=2', '--val=1', '--test=1'],
    'train': [*train, *steps],
    'evaluate': [*evaluate, '--config.data.num_workers=0'],
    'explain': [*explain, '--faithfulness_steps=1'],
  }
  outputs = {}
  for name, command in commands.items():
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs[name] = done.stdout

  rows = list(
    csv.DictReader((runs / 'data/clips.csv').read_text().splitlines())
  )
  names = sorted({row['label'] for row in rows})
  assert len(names) >= 12 and len(rows) == 4 * len(names)

  test = [row['path'] for row in rows if row['split'] == 'test']
  top1 = _check_predictions(runs / 'evaluation/predictions.npz', test, names)
  summary = json.loads((runs / 'evaluation/summary.json').read_text())
  assert summary['videos'] == len(names) and summary['not_scored'] == {}
  assert summary['top1'] == top1
  assert f'{top1:.1%}' in outputs['evaluate']
  controls = json.loads((runs / 'evaluation/controls.json').read_text())
  assert controls['top1'] == top1
  # Videos of one number are alike in all classes: a guess is right for one.
  assert controls['trivial_cues'] < 0.2
  for name in ('trivial_cues', 'shuffled_top1', 'pairs', 'shuffled_pairs'):
    assert 0 <= controls[name] <= 1
    assert f'{controls[name]:.1%}' in outputs['evaluate']
  for name in (*names, str(runs / 'evaluation')):
    assert name in outputs['evaluate'].replace('\n', '')
  for name in ('evaluation/confusion.png', 'evaluation/per_class.csv',
               'curves.png', 'metrics.jsonl', 'tensorboard'):  # fmt: skip
    assert (runs / name).exists(), name
  report = runs / 'explanation/report.html'
  assert outputs['explain'].split() == [str(report)]
  told = json.loads((report.parent / 'explanation.json').read_text())
  assert told['label'] in names and told['label'] in report.read_text()
