"""Traces of some steps of a run."""

import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.training import loop, profiling
from tests.tiny_runs import tiny_config


def test_steps_by_name():
  assert [*profiling.parse('3:5')] == [3, 4, 5]
  assert not profiling.parse('')


@pytest.mark.parametrize('text', ['5', '0:3', '5:3', 'a:b', '1:2:3', '-1:2'])
def test_other_words_are_refused(text):
  with pytest.raises(UserError, match=f'--profile={text}.*20:24'):
    profiling.parse(text)


def test_a_run_leaves_a_trace_of_its_steps(blinking_videos, tmp_path):
  config = tiny_config(
    blinking_videos, train__num_steps=4, train__validation_split=''
  )
  with pytest.raises(UserError, match=r'3:5.* still to come, 1 to 4'):
    loop.train(config, tmp_path / 'late', range(3, 6))
  loop.train(config, tmp_path / 'run', range(2, 4))
  (trace,) = (tmp_path / 'run/profile').rglob('*.xplane.pb')
  assert b'train_step' in trace.read_bytes()
