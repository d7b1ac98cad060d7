"""What loader processes must not do, and that none is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import grain
import numpy as np
import pytest

from mtnet_jax.data import loading
from mtnet_jax.errors import Interruption

_PROBE = """
  import os, sys, time
  import cv2, numpy as np
  from mtnet_jax.data import loading

  class Probe:
    def __len__(self):
      return 100
    def __getitem__(self, step):
      bridge = sys.modules.get('jax._src.xla_bridge')
      return {
        'pid': np.array(os.getpid()),
        'devices': np.array(len(bridge._backends) if bridge else 0),
        'threads': np.array(cv2.getNumThreads()),
        'large': np.zeros(2**21, np.uint8),
      }

  if __name__ == '__main__':
    batches = loading.iterate(Probe(), num_workers=2)
    for batch, _ in zip(batches, range(2)):
      print(batch['pid'], batch['devices'], batch['threads'], flush=True)
    time.sleep(60)
"""


def test_workers_touch_no_device_and_end_with_a_killed_parent(root, tmp_path):
  script = tmp_path / 'probe.py'
  script.write_text(textwrap.dedent(_PROBE))
  parent = subprocess.Popen(
    [sys.executable, str(script)],
    cwd=root,
    env=os.environ | {'PYTHONPATH': str(root)},
    stdout=subprocess.PIPE,
    text=True,
  )
  lines = [parent.stdout.readline().split() for _ in range(2)]
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  parent.stdout.close()
  workers = [int(pid) for pid, _, _ in lines]
  assert len(set(workers)) == 2
  assert [line[1:] for line in lines] == [['0', '1']] * 2
  for _ in range(200):
    alive = [pid for pid in workers if os.path.exists(f'/proc/{pid}')]
    if not alive:
      break
    time.sleep(0.05)
  assert not alive


class _Batches:
  def __len__(self):
    return 2

  def __getitem__(self, step):
    return {'step': np.array(step)}


def test_batches_come_without_what_is_experimental(monkeypatch):
  monkeypatch.delattr(grain.experimental, 'DatasetOptions')
  batches = loading.iterate(_Batches(), num_workers=1)
  assert [int(batch['step']) for batch in batches] == [0, 1]


class _Deadly(_Batches):
  """Kills the process that loads `at`, as a system does that has no memory."""

  def __init__(self, at):
    self._at = at

  def __getitem__(self, step):
    if step == self._at:
      os.kill(os.getpid(), signal.SIGKILL)
    return super().__getitem__(step)


@pytest.mark.parametrize('at', [0, 1])
def test_waiting_for_a_killed_worker_ends_with_a_sentence(at):
  batches = loading.iterate(_Deadly(at), num_workers=1)
  with pytest.raises(Interruption, match='killed by SIGKILL'):
    list(batches)


def test_importing_the_pipeline_loads_neither_jax_nor_grain(root):
  code = (
    'import mtnet_jax.data.pipeline, sys; '
    'print({"jax", "grain", "tensorflow"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.stdout.strip() == 'set()', done.stderr


def test_a_loader_watches_its_own_workers_alone():
  """Not one of validation's that is killed because it is slow to end."""
  spawning = multiprocessing.get_context('spawn')

  def start():
    process = spawning.Process(target=time.sleep, args=(60,), daemon=True)
    process.start()
    return process

  def kill(process):
    process.kill()
    process.join()

  with loading._watching(3) as training:
    own = start()
    training()
    with loading._watching(2) as validation:
      noted = start()
      validation()
      late = start()
    training()
    kill(noted)
    kill(late)
    assert loading.killed_worker() == ''
    last = start()
    training()
    kill(last)
    assert f'({last.pid}) was killed by SIGKILL' in loading.killed_worker()
    kill(own)
  assert loading.killed_worker() == ''
