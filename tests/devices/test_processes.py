"""Where processes leave word for each other."""

import jax
from jax._src import distributed

from mtnet_jax.devices import processes


class _Client:
  """Of JAX's store, in this process's memory."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite):
    assert allow_overwrite
    self.values[key] = value

  def key_value_dir_get(self, prefix):
    return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]


def test_one_process_has_no_board():
  assert processes.board() is None


def test_the_newest_line_of_each_process_is_read(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed.global_state, 'client', _Client())
  board = processes.board()
  for index, line in ((0, 'starting'), (1, 'starting'), (0, 'training')):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    board.put(line)
  assert board.read() == {0: 'training', 1: 'starting'}


def test_where_jax_hides_its_store_the_log_says_so(monkeypatch, caplog):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.delattr(distributed, 'global_state')
  assert processes.board() is None
  assert 'processes do not watch each other' in caplog.text
