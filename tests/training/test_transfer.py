"""What a new run takes from another one, and what it says of it."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.runs import metric_writer
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs import state as state_lib
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.training import loop, transfer
from tests.prediction_runs import STEP, write_run
from tests.tiny_runs import tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def other(blinking_videos, tmp_path_factory):
  """The workdir of another run, of classes 'bright' and 'dark'."""
  workdir = tmp_path_factory.mktemp('other')
  write_run(workdir, blinking_videos)
  return workdir


@pytest.fixture(scope='module')
def renamed(blinking_videos, tmp_path_factory):
  """The same videos under other names."""
  root = tmp_path_factory.mktemp('renamed')
  for split in ('train', 'val', 'test'):
    (root / split).mkdir()
    for old, new in (('bright', 'day'), ('dark', 'night')):
      (root / split / new).symlink_to(blinking_videos / split / old)
  return root


def _weights(workdir, step):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with Checkpoints(workdir, read_only=True) as checkpoints:
    return leaf_paths(checkpoints.read_variables(step, sharding))


@pytest.fixture(autouse=True)
def _log_everything(caplog):
  caplog.set_level('INFO', 'absl')


def _start(config, workdir):
  """Trains one step at a rate of zero: the weights stay as they began."""
  config.seed = 1  # not what the other run began with
  config.train.num_steps = 1
  config.optim.warmup_steps = 0
  config.optim.learning_rate = 0.0
  loop.train(config, workdir)
  return _weights(workdir, 1)


def test_the_same_classes_keep_everything(other, blinking_videos, tmp_path):
  config = tiny_config(blinking_videos, train__init_from=str(other))
  got, expected = _start(config, tmp_path), _weights(other, STEP)
  assert got.keys() == expected.keys()
  for path, leaf in got.items():
    if path.startswith('params'):  # BN's statistics have moved on
      np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def _new_state(model_config, names, other):
  """What `start_from` makes of a fresh state, without training."""
  model = model_lib.build_model(model_config, len(names))
  tx = optax.sgd(0.1)
  shape = model_lib.training_clip_shape(model_config)
  fresh = jax.jit(lambda: state_lib.create(model, tx, shape, 1))()
  return fresh, transfer.start_from(other, fresh, names)


def test_statistics_are_taken_over_too(other, blinking_videos):
  config = tiny_config(blinking_videos)
  fresh, got = _new_state(config, ('bright', 'dark'), other)
  expected = _weights(other, STEP)
  got, fresh = (leaf_paths(s.variables) for s in (got, fresh))
  assert got.keys() == expected.keys()
  for path, leaf in got.items():
    np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
  path = 'batch_stats/stem_norm/mean'
  assert np.abs(got[path] - fresh[path]).max() > 0.001


def test_the_same_classes_in_another_order_get_a_new_head(
  other, blinking_videos
):
  config = tiny_config(blinking_videos)
  fresh, got = _new_state(config, ('dark', 'bright'), other)
  kernels = [s.params['classifier']['kernel'] for s in (fresh, got)]
  np.testing.assert_array_equal(*kernels)
  kernels = [s.params['linear']['kernel'] for s in (fresh, got)]
  assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_other_classes_get_a_new_head(other, renamed, tmp_path, caplog):
  config = tiny_config(renamed, train__init_from=str(other))
  got, expected = _start(config, tmp_path), _weights(other, STEP)
  head = {'params/classifier/kernel', 'params/classifier/bias'}
  for path in got.keys() - head:
    if path.startswith('params'):
      np.testing.assert_array_equal(got[path], expected[path], err_msg=path)
  kernel = 'params/classifier/kernel'
  assert np.abs(got[kernel] - expected[kernel]).max() > 0.01
  listed = '2:\n  params/classifier/ bias (2,), kernel (128, 2)\n'
  assert f'New are {listed}Left behind are {listed}' in caplog.text


def test_what_does_not_fit_is_new_and_listed(other, renamed, caplog):
  config = tiny_config(renamed, model__recurrence=True)
  states = _new_state(config, ('day', 'night'), other)
  new, got = (leaf_paths(state.variables) for state in states)
  # Every one of them is listed, with its shape.
  taken = _weights(other, STEP)
  missing = [
    name
    for name in got
    if name not in taken or name.startswith('params/classifier/')
  ]
  assert len(missing) == 26 and f'New are {len(missing)}:' in caplog.text
  listed = caplog.text.split('New are')[1].split('Left behind')[0]
  modules = [line.split() for line in listed.splitlines()[1:]]
  assert sorted(missing) == sorted(
    module + array
    for module, *arrays in modules
    for array in arrays
    if array[0].isalpha()
  )
  path = 'params/stage_1_block_1/recursion/recurrence/layer_0/kernel_x'
  layer = 'params/stage_1_block_1/recursion/recurrence/layer_0/'
  assert f'  {layer} bias (48,), kernel_h (16, 48), kernel_x (16, 48)\n' in (
    listed
  )
  np.testing.assert_array_equal(got[path], new[path])
  shared = 'params/stage_2_block_1/expand/local/kernel'
  np.testing.assert_array_equal(got[shared], _weights(other, STEP)[shared])


@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_its_own(other, blinking_videos,
                                                 tmp_path):  # fmt: skip
  config = tiny_config(
    blinking_videos, train__init_from=str(other), train__num_steps=3
  )
  loop.train(config, tmp_path)
  config.train.num_steps = 5
  config.train.init_from = str(tmp_path / 'gone')  # no longer read
  loop.train(config, tmp_path)
  assert metric_writer.read(tmp_path / 'metrics.jsonl')[-1]['step'] == 5


def test_the_classifier_alone_on_features_that_stay(other, renamed, tmp_path):
  config = tiny_config(
    renamed,
    train__init_from=str(other),
    train__num_steps=3,
    optim__trained='classifier',
  )
  loop.train(config, tmp_path)
  got, expected = _weights(tmp_path, 3), _weights(other, STEP)
  assert got.keys() == expected.keys()
  for path, leaf in got.items():
    if not path.startswith('params/classifier/'):
      np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
  assert got['params/classifier/bias'].any()  # it began at zero


def _maps_alone(directory, other):
  """Class Regularisation of what `other` is, which has none."""
  return tiny_config(
    directory,
    train__init_from=str(other),
    train__num_steps=3,
    model__class_regularization=True,
    optim__trained='class_regularization',
    optim__weight_decay=0.1,
    seed=1,
  )


@pytest.mark.slow
def test_the_maps_of_class_regularization_alone(
  other, blinking_videos, tmp_path
):
  config = _maps_alone(blinking_videos, other)
  loop.train(config, tmp_path)
  got, expected = _weights(tmp_path, 3), _weights(other, STEP)
  maps = {f'params/class_regularization_{i}/kernel' for i in range(1, 5)}
  assert got.keys() == expected.keys() | maps
  for path in expected:
    np.testing.assert_array_equal(got[path], expected[path], err_msg=path)
  # What they began with, and what they have become.
  _, start = _new_state(config, ('bright', 'dark'), other)
  start = leaf_paths(start.variables)
  for path in maps:
    assert 1e-4 < np.abs(got[path] - start[path]).max() < 1, path
  for path in expected:
    np.testing.assert_array_equal(start[path], expected[path], err_msg=path)


def test_a_part_that_cannot_be_trained(
  other, renamed, blinking_videos, tmp_path
):
  config = _maps_alone(renamed, other)
  with pytest.raises(
    UserError,
    match=r'2 arrays.*classifier/bias.*whose classes have other names',
  ):
    loop.train(config, tmp_path)
  config = _maps_alone(blinking_videos, other)
  config.model.class_regularization = False
  with pytest.raises(UserError, match=r'model\.class_regularization=True'):
    loop.train(config, tmp_path)
  config.optim.trained = 'classifier'
  config.train.init_from = ''
  with pytest.raises(UserError, match=r"'classifier'.*init_from=WORKDIR"):
    loop.train(config, tmp_path)


@pytest.fixture(scope='module')
def by_hand(tmp_path_factory):
  """A workdir with two checkpoints of two arrays, of which the first is best.

  Returns:
    The workdir; step n holds arrays full of n.
  """
  workdir = tmp_path_factory.mktemp('by_hand')
  (workdir / 'labels.txt').write_text('a\nb\n')
  for step in (1, 2):
    with Checkpoints(workdir) as checkpoints:
      checkpoints.save(_arrays(step), {'top1': 1 / step})
  return workdir


def _arrays(value):
  params = {
    'conv': {'kernel': jnp.full((64, 128), float(value))},
    'classifier': {'kernel': jnp.full((128, 3), float(value))},
  }
  return state_lib.TrainState(
    step=jnp.int32(value),
    params=params,
    batch_stats={'norm': {'mean': jnp.full(128, float(value))}},
    opt_state=optax.sgd(0.1).init(params),
  )


@pytest.mark.parametrize(
  ('path', 'expected'), [('', 1), ('checkpoints/1', 1), ('checkpoints/2', 2)]
)
def test_the_best_checkpoint_or_the_one_that_is_named(by_hand, path, expected):
  got = transfer.start_from(by_hand / path, _arrays(0), ('a', 'b'))
  assert all(
    (leaf == expected).all() for leaf in jax.tree.leaves(got.variables)
  )
  assert got.step == 0
  got = transfer.start_from(by_hand / path, _arrays(0), ('b', 'a'))
  assert not got.params['classifier']['kernel'].any()


def test_no_such_checkpoint(by_hand):
  with pytest.raises(UserError, match=r'no checkpoint in .*/checkpoints/3 .*'):
    transfer.start_from(by_hand / 'checkpoints/3', _arrays(0), ('a', 'b'))


_ON_EIGHT = """
import sys, jax, numpy as np
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.runs import state
from mtnet_jax.runs.checkpoints import Checkpoints
from mtnet_jax.training import transfer
from tests.training.test_transfer import _arrays

workdir, own = sys.argv[1:]
mesh = mesh_lib.make_mesh(fsdp=4)
new = _arrays(0)
new = jax.device_put(new, state.shardings(new, mesh))
got = transfer.start_from(workdir, new, ('a', 'b'))
jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other + 1),
             got.variables, new.variables)
for one, other in zip(*map(jax.tree.leaves, (got, new)), strict=True):
  assert one.sharding == other.sharding
kernel = got.params['conv']['kernel']
assert {s.data.shape for s in kernel.addressable_shards} == {(64, 32)}
# And what eight devices have written, others start from.
with Checkpoints(own) as checkpoints:
  checkpoints.save(got)
print('done')
"""


def test_everything_lies_where_it_lay(by_hand, root, tmp_path):
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT, str(by_hand), str(tmp_path)],
    cwd=root,
    env=os.environ | {'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.stdout == 'done\n', done.stderr
  got = transfer.start_from(tmp_path, _arrays(0), ())
  assert (got.params['conv']['kernel'] == 1).all()


def test_nothing_to_start_from(other, blinking_videos, tmp_path):
  config = tiny_config(blinking_videos, train__init_from=str(tmp_path / 'none'))
  with pytest.raises(UserError, match=r'no checkpoint in .*none.*init_from'):
    loop.train(config, tmp_path / 'run')
  config = tiny_config(blinking_videos, train__init_from=str(other))
  config.model.name = 'r3d_18'
  config.model.local_ratio = config.model.recurrence = None
  with pytest.raises(UserError, match=r'Nothing in .* fits this model'):
    loop.train(config, tmp_path / 'run')
