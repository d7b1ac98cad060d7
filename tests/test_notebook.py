"""The notebook on one's own videos: as it is kept, and as it runs."""

import ast
import json
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

# Executes cells as Jupyter does, one after the other in one namespace, and
# saves the figures that each of them leaves open.
_RUNNER = """
import json, pathlib, sys
import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt

def run(cells):
  names = {'__name__': '__main__'}
  for number, source in enumerate(cells):
    exec(compile(source, f'cell {number}', 'exec'), names)
    for figure in map(plt.figure, plt.get_fignums()):
      figure.savefig(f'figure-{number}-{figure.number}.png')
    plt.close('all')

if __name__ == '__main__':
  run(json.loads(pathlib.Path('cells.json').read_text()))
"""


@pytest.fixture
def notebook(root):
  return json.loads((root / 'examples/own_videos.ipynb').read_text('utf-8'))


def _code(notebook):
  return [
    ''.join(cell['source'])
    for cell in notebook['cells']
    if cell['cell_type'] == 'code'
  ]


def test_it_is_kept_without_outputs_and_is_plain_python(notebook):
  assert notebook['nbformat'] == 4
  for cell in notebook['cells']:
    assert cell['metadata'] == {}
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == [] and cell['execution_count'] is None
  for source in _code(notebook):
    ast.parse(source)
  assert sum('finetune.COMMAND' in source for source in _code(notebook)) == 1


@pytest.mark.check
@pytest.mark.timeout(3600)
def test_it_runs_from_the_first_cell_to_the_last(notebook, root, tmp_path):
  (tmp_path / 'cells.json').write_text(json.dumps(_code(notebook)))
  (tmp_path / 'runner.py').write_text(_RUNNER)
  done = subprocess.run(
    [sys.executable, 'runner.py'],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(root)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  assert '380 videos' in done.stdout and 'advice:' in done.stdout
  assert 'video,class_1,probability_1,class_2' in done.stdout
  out = tmp_path / 'own_videos'
  summary = json.loads((out / 'run/evaluation/summary.json').read_text())
  assert summary['videos'] == 40
  assert summary['top1'] > 0.5  # a guess: 0.2
  found = json.loads((out / 'explanation/explanation.json').read_text())
  assert [tube['method'] for tube in found['tubes']] == ['saliency_tubes']
  assert (out / 'explanation/report.html').is_file()
  figures = sorted(tmp_path.glob('figure-*.png'))
  # Data, batch, confusion, curves, five videos, an explanation.
  assert len(figures) == 10
  for path in figures:
    assert plt.imread(path)[..., :3].std() > 0.02, path
