"""Several processes, and several devices, train like one."""

import numpy as np
import pytest

from mtnet_jax.runs import metric_writer
from tests.checkpoint_files import stored_leaves
from tests.distributed_runs import train

# The whole network takes minutes to compile.
_OF_CHECK = pytest.mark.check


def _differences(workdir, other, step=5):
  """The largest difference of each array, as a share of its largest value."""
  leaves, others = (stored_leaves(w, step) for w in (workdir, other))
  assert leaves.keys() == others.keys()
  return {
    name: np.abs(leaf - others[name]).max() / max(np.abs(leaf).max(), 1e-12)
    for name, leaf in leaves.items()
    if leaf.size
  }


@pytest.fixture(scope='module')
def alone(root, blinking_videos, tmp_path_factory):
  """The workdir of one process on one device."""
  workdir = tmp_path_factory.mktemp('alone')
  train(root, blinking_videos, workdir, 1, light=False)
  leaves = stored_leaves(workdir, 5)
  assert {str(leaf.dtype) for leaf in leaves.values()} == {'float64', 'int32'}
  return workdir


@pytest.fixture(scope='module')
def alone_and_light(root, blinking_videos, tmp_path_factory):
  """Likewise, of the light network."""
  workdir = tmp_path_factory.mktemp('alone_and_light')
  train(root, blinking_videos, workdir, 1)
  return workdir


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
  ('count', 'devices', 'other'),
  [
    pytest.param(2, 2, 'alone_and_light', marks=pytest.mark.slow),
    pytest.param(2, 2, 'alone', marks=_OF_CHECK),
    pytest.param(4, 1, 'alone_and_light', marks=_OF_CHECK),
  ],
)
def test_several_processes_train_like_one(
  root, blinking_videos, count, devices, other, request, tmp_path
):
  light = other == 'alone_and_light'
  alone = request.getfixturevalue(other)
  logs = train(root, blinking_videos, tmp_path, count, devices, light=light)
  differences = _differences(alone, tmp_path)
  assert max(differences.values()) < 1e-5, differences
  # One logger: of the others nothing is in the log.
  assert 'Compiling for clips' in logs[0]
  assert not any('Compiling for clips' in log for log in logs[1:])
  losses, expected = (
    {
      r['step']: r['train/loss']
      for r in metric_writer.read(w / 'metrics.jsonl')
    }
    for w in (tmp_path, alone)
  )
  assert losses == pytest.approx(expected, rel=1e-5) and len(losses) == 5


@pytest.mark.timeout(900)
@pytest.mark.check
@pytest.mark.parametrize('other', ['alone_and_light', 'alone'])
def test_split_parameters_train_like_whole_ones(
  root, blinking_videos, other, request, tmp_path
):
  light = other == 'alone_and_light'
  alone = request.getfixturevalue(other)
  train(root, blinking_videos, tmp_path, 1, 8, light=light, mesh__fsdp=4)
  differences = _differences(alone, tmp_path)
  assert max(differences.values()) < 1e-5, differences


@pytest.mark.check
def test_a_run_goes_on_with_more_processes_and_with_fewer_again(
  root, blinking_videos, alone_and_light, tmp_path
):
  changing = tmp_path / 'changing'
  for count, steps in ((1, 3), (2, 4), (1, 5)):
    logs = train(root, blinking_videos, changing, count, train__num_steps=steps)
    if steps > 3:
      before = steps - 1
      assert f'Resuming from the checkpoint of step {before}' in logs[0]
  differences = _differences(alone_and_light, changing)
  assert max(differences.values()) < 1e-5, differences


@pytest.mark.check
def test_a_damaged_checkpoint_is_put_aside_by_all(
  root, blinking_videos, tmp_path
):
  """Process 0 alone looks, and the others must not wait for it meanwhile."""
  train(root, blinking_videos, tmp_path, 2, train__num_steps=3)
  files = (tmp_path / 'checkpoints/3/optimizer').rglob('d/*')
  path = max(files, key=lambda file: file.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  logs = train(root, blinking_videos, tmp_path, 2, train__num_steps=4)
  assert 'Resuming from the checkpoint of step 2' in logs[0]
  (aside,) = (tmp_path / 'damaged_checkpoints').iterdir()
  assert aside.name.startswith('3-')


_COMPILES_AHEAD = """
import functools, sys
from mtnet_jax import cli
from mtnet_jax.commands import train
from mtnet_jax.training import loop

sys.argv[0] = 'train.py'
loop.train = functools.partial(loop.train, compile_ahead=True)
cli.run(train.COMMAND)
"""


@pytest.mark.check
@pytest.mark.timeout(900)
def test_two_processes_that_compile_ahead_train_like_one(
  root, blinking_videos, tmp_path
):
  changes = {
    'data__num_frames': 4,
    'data__input_size': 32,
    'train__batch_size': 4,
    'train__short_cycle': True,
    'train__num_steps': 3,
    'train__checkpoint_every': 0,
  }
  alone, ahead = tmp_path / 'alone', tmp_path / 'ahead'
  train(root, blinking_videos, alone, 1, **changes)
  program = ('-c', _COMPILES_AHEAD)
  logs = train(root, blinking_videos, ahead, 2, program=program, **changes)
  # One tells of them, before the first step.
  told = logs[0].index('compiling: 3/3 shapes')
  assert logs[0].count('Compiled for clips of', 0, told) == 3
  assert 'training: ' not in logs[0][:told]
  assert 'ompil' not in logs[1]
  differences = _differences(alone, ahead, step=3)
  assert max(differences.values()) < 1e-5, differences


@pytest.mark.check
@pytest.mark.timeout(900)
def test_several_processes_train_like_one_with_all_options(
  root, blinking_videos, tmp_path
):
  """They mix the same clips, and end at the same validation."""
  changes = {
    'optim__name': 'adamw',
    'optim__clip_norm': 0.5,
    'optim__ema_decay': 0.5,
    'optim__label_smoothing': 0.1,
    'optim__learning_rate': 1e-4,
    'optim__reference_batch': 16,
    'train__accumulate': 2,
    'train__num_steps': 12,
    'train__validation_split': 'val',
    'train__eval_every': 2,
    'train__patience': 2,
    'data__mixup_share': 0.4,
    'data__cutmix_share': 0.4,
    'data__rand_augment': 1,
  }
  one, several = tmp_path / 'one', tmp_path / 'several'
  train(root, blinking_videos, one, 1, **changes)
  train(root, blinking_videos, several, 2, 2, **changes)
  kept, others = (
    {int(path.name) for path in (workdir / 'checkpoints').iterdir()}
    for workdir in (one, several)
  )
  assert kept == others and max(kept) < 12
  differences = _differences(one, several, step=max(kept))
  assert max(differences.values()) < 1e-5, differences
