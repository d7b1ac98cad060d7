"""Recipes of other authors' networks take steps on small videos."""

import json

import pytest

from mtnet_jax.commands import eval as eval_command
from mtnet_jax.commands import explain, export, train
from tests import command_line, tiny_runs

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures('quick_compilation'),
]


@pytest.mark.parametrize(
  ('recipe', 'frames'),
  [
    ('slow:r50_4x16', 4),
    ('slowfast:r50_4x16', 8),
    ('tsm:r50_8', 4),
    ('tsm:tanet_r50_8', 8),
    ('csn:ir_50', 4),
    ('hara:r3d_18', 4),
    ('hara:resnext3d_50', 4),
    ('r2plus1d:mc3_18', 4),
    ('i3d', 8),
    ('mfnet', 4),
  ],
)
def test_steps(recipe, frames, blinking_videos, tmp_path):
  flags = tiny_runs.tiny_flags(
    blinking_videos,
    data__num_frames=frames,
    data__frame_stride=1,
    train__num_steps=2,
    train__norm_batch_size=0,
    train__eval_every=2,
    train__checkpoint_every=2,
    optim__warmup_steps=1,
    optim__milestones=(),
    model__dtype='float32',
  )
  done = command_line.run(
    train.COMMAND, f'--config={recipe}', f'--workdir={tmp_path}', *flags
  )
  assert done.code == 0, done.stderr
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  losses = [
    row['train/loss'] for row in map(json.loads, lines) if 'train/loss' in row
  ]
  assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
  done = command_line.run(
    eval_command.COMMAND, f'--workdir={tmp_path}', '--config.eval.num_crops=1'
  )
  assert done.code == 0, done.stderr
  summary = json.loads((tmp_path / 'evaluation/summary.json').read_text())
  assert summary['videos'] == 8
  video = next(blinking_videos.rglob('*.mp4'))
  if recipe.startswith(('slowfast', 'tsm:r50', 'i3d', 'mfnet')):
    _explain(tmp_path, video)
  if recipe.startswith(('slowfast', 'tsm:r50')):
    _export(tmp_path)


def _explain(workdir, video):
  out = workdir / 'explanation'
  done = command_line.run(
    explain.COMMAND,
    f'--workdir={workdir}',
    f'--video={video}',
    f'--out={out}',
    '--faithfulness_steps=0',
  )
  assert done.code == 0, done.stderr
  tubes = json.loads((out / 'explanation.json').read_text())['tubes']
  pyramids = any(t['method'] == 'class_feature_pyramids' for t in tubes)
  chained = 'slowfast' not in (workdir / 'config.json').read_text()
  assert pyramids == chained


def _export(workdir):
  done = command_line.run(
    export.COMMAND, f'--workdir={workdir}', f'--out={workdir / "exported"}'
  )
  assert done.code == 0, done.stderr
