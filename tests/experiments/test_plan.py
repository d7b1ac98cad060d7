"""Which runs a table has, in which order, and which workdirs they may use."""

import json

import pytest

from configs import ablations, class_regularization, quickstart, srtg
from mtnet_jax.errors import UserError
from mtnet_jax.experiments import plan
from tests.experiments.stub_runs import CHANGES, make_plan, write_training

_POOLINGS = ['avg', 'max', 'stochastic', 'softpool', 'avg+cos', 'softpool+cos']


def test_the_first_seed_of_all_runs_comes_first(tmp_path):
  table = make_plan(tmp_path, seeds=[3, 1])
  order = [(job.seed, job.run) for job in table.jobs]
  assert order == [(seed, run) for seed in (3, 1) for run in _POOLINGS]
  for job in table.jobs:
    assert job.workdir == tmp_path / job.run / f'seed_{job.seed}'
    assert job.config.seed == job.seed and job.config.is_locked
    assert job.config.model.pooling == job.run
  assert table.against == dict.fromkeys(_POOLINGS, 'softpool+cos')


def test_a_config_is_what_train_py_would_be_given(tmp_path):
  job = make_plan(tmp_path).jobs[0]
  config = ablations.get_config('5.8/avg/quickstart')
  config.update_from_flattened_dict(CHANGES)
  assert job.config.to_dict() == config.to_dict()


def test_runs_and_reference_can_be_chosen(tmp_path):
  table = make_plan(tmp_path, runs=['max', 'avg'], reference='max')
  assert [job.run for job in table.jobs] == ['avg', 'max'] * 2
  assert table.against == {'avg': 'max', 'max': 'max'}
  # Without its own reference a table has nothing to compare.
  assert make_plan(tmp_path, runs=['avg']).against == {'avg': 'softpool+cos'}


def test_every_backbone_is_compared_with_itself(tmp_path):
  config = srtg.get_config('r3d_18')
  table = plan.make(config, '4.1', tmp_path, seeds=[0])
  assert table.against['r3d_final'] == 'r3d_none'
  assert table.against['r2plus1d_res'] == 'r2plus1d_none'


def test_maps_go_on_from_the_run_without_them(tmp_path):
  table = make_plan(tmp_path, '6.4', seeds=[2])
  without, whole, maps = table.jobs
  assert (without.after, whole.after) == (None, None)
  assert maps.after == without.workdir
  assert not without.config.model.class_regularization
  assert whole.config.optim == without.config.optim
  assert maps.config.optim.trained == 'class_regularization'
  assert maps.config.train.num_epochs == 120

  config = quickstart.get_config()
  config.train.num_epochs = 5.0
  given = {'train.num_epochs', 'model.class_regularization'}
  table = plan.make(config, '6.4', tmp_path, seeds=[0], given=given)
  assert [job.config.train.num_epochs for job in table.jobs] == [5, 5, 5]
  regularized = [job.config.model.class_regularization for job in table.jobs]
  assert regularized == [False, True, True]
  left = table.jobs[2].config
  for key, value in class_regularization.MAPS.items():
    section, name = key.split('.')
    assert key in given or left[section][name] == value


@pytest.mark.parametrize(
  ('table', 'options', 'message'),
  [
    ('5.8', {'runs': ['avgs']}, r"no run 'avgs'.* it has avg, max, stochastic"),
    ('5.8', {'runs': []}, 'no run'),
    ('5.8', {'reference': 'mean'}, r"Table 5\.8 has no run 'mean'"),
    (
      '5.8',
      {'runs': ['avg', 'max'], 'reference': 'softpool'},
      r"'avg' needs the run 'softpool'.* add it to --runs=avg,max\.",
    ),
    ('6.4', {'runs': ['maps']}, "'maps' needs the run 'without'"),
    ('5.8', {'seeds': [1, 1]}, r'The seeds \[1, 1\] must be'),
    ('5.8', {'seeds': []}, r'The seeds \[\] must be'),
    ('5.8', {'seeds': [2**32]}, r'\[4294967296\] must .* 0 to 4294967295'),
    ('4.1', {}, r"Table 4\.1 needs a residual backbone.*'mtnet_xs'"),
    ('9.9', {}, r"no table '9\.9'"),
  ],
)
def test_what_cannot_be_planned(table, options, message, tmp_path):
  with pytest.raises(UserError, match=message):
    make_plan(tmp_path, table, **options)


def test_a_workdir_of_another_configuration_is_refused(tmp_path):
  job = make_plan(tmp_path).jobs[0]
  plan.check_workdir(job)  # nothing there yet
  write_training(job)
  plan.check_workdir(job)

  other = job.config.copy_and_resolve_references()
  other.optim.learning_rate = 0.5
  other.train.batch_size = 8
  write_training(job, other)
  with pytest.raises(
    UserError,
    match=r'another configuration: optim\.learning_rate was 0\.5, now it is '
    r'0\.06\. Give the same keys as before, or another --out',
  ):
    plan.check_workdir(job)
  (job.workdir / 'config.json').write_text('{"data": ')
  with pytest.raises(UserError, match=r'config\.json is damaged'):
    plan.check_workdir(job)


def test_a_run_from_before_a_key_is_the_same_run(tmp_path):
  job = make_plan(tmp_path).jobs[0]
  write_training(job)
  path = job.workdir / 'config.json'
  sections = json.loads(path.read_text())
  del sections['model']['stage_features']  # unset
  del sections['data']['read_attempts']  # at its default
  path.write_text(json.dumps(sections))
  plan.check_workdir(job)
  # A key that this run sets to something else than its default.
  del sections['data']['frame_stride']
  sections['data']['frame_stride'] = 5
  path.write_text(json.dumps(sections))
  with pytest.raises(UserError, match=r'data\.frame_stride was 5, now it is 6'):
    plan.check_workdir(job)
  # One that is not there any more.
  sections['data'] |= {'frame_stride': 6, 'blur': 1}
  path.write_text(json.dumps(sections))
  with pytest.raises(UserError, match=r'data\.blur was 1, now it is None'):
    plan.check_workdir(job)


def test_where_a_run_starts_from_follows_from_the_folder(tmp_path):
  maps = make_plan(tmp_path, '6.4').jobs[2]
  moved = maps.config.copy_and_resolve_references()
  moved.train.init_from = 'elsewhere/without/seed_0/checkpoints/7'
  write_training(maps, moved)
  plan.check_workdir(maps)


def test_what_cannot_change_the_result_may_differ(tmp_path):
  job = make_plan(tmp_path, seeds=[2**32 - 1]).jobs[0]
  other = job.config.copy_and_resolve_references()
  other.data.update(dir='/moved', num_workers=7, prefetch=9, read_attempts=1)
  other.train.update(stall_timeout=5, log_every=3, checkpoint_every=2)
  other.eval.clips_per_step = 1
  write_training(job, other)
  plan.check_workdir(job)
  other.mesh.fsdp = 2  # BN's statistics are of fewer clips
  write_training(job, other)
  with pytest.raises(UserError, match=r'mesh\.fsdp was 2, now it is 1'):
    plan.check_workdir(job)
