"""Ends a run that stands still, and says which process is to blame.

A process whose peer is gone would wait for it without end, on some machines
without a word. So a thread of each looks at its own progress, tells the others
of it, and looks at theirs.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import jax

from mtnet_jax import cli

_LOOK_EVERY = 2.0  # seconds
# A process that has said nothing for so long is gone.
_SILENCE_SECONDS = 60.0
# The same, where the devices say already that somebody is.
_SILENCE_AFTER_ERROR = 10.0


class Board(Protocol):
  """Where each process puts a line that all of them can read."""

  def put(self, line: str) -> None:
    """Replaces this process's line."""

  def read(self) -> dict[int, str]:
    """The lines by process."""


class Watch:
  """Watches a training; a context manager, and the only one of its process."""

  def __init__(
    self,
    stall_seconds: float,
    board: Board | None = None,
    *,
    index: int = 0,
    clock: Callable[[], float] = time.monotonic,
    end: Callable[[str], None] | None = None,
  ):
    """Notes when it began.

    Args:
      stall_seconds: that a stage may take.
      board: of all processes; None: there is one only.
      index: of this process.
      clock: seconds, rising.
      end: ends the process with a message; None: at once, with code 75.
    """
    self._stall_seconds, self._board, self._index = stall_seconds, board, index
    self._clock, self._end = clock, end or _end
    self._name = f'process {index} on {socket.gethostname()} ({os.getpid()})'
    self._silence = _SILENCE_SECONDS
    self._beats, self._heard = 0, {}
    self._over = ''
    self._finished = threading.Event()
    self._stage = ('starting', 0, clock(), False)

  def note(self, stage: str, step: int, limited: bool = True) -> None:
    """Says what this process does from now on.

    Args:
      stage: for people, such as 'waiting for its loader'.
      step: of the training.
      limited: whether it must not take longer than `stall_seconds`.
    """
    self._stage = (stage, step, self._clock(), limited)

  @contextlib.contextmanager
  def unlimited(self, stage: str, step: int) -> Iterator[None]:
    """What happens inside may take long."""
    self.note(stage, step, limited=False)
    yield
    self.note('training', step)

  def look(self) -> None:
    """Looks once, and ends the process where something stands still."""
    stage, step, since, limited = self._stage
    now = self._clock()
    if limited and now - since > self._stall_seconds:
      self._give_up(
        f'{self._name} has been {stage} for {now - since:.0f} s at step '
        f'{step}, longer than train.stall_timeout (={self._stall_seconds:g}).'
      )
    if self._board is None:
      return
    try:
      self._tell()
      lines = self._board.read()
    except (jax.errors.JaxRuntimeError, OSError) as error:
      self._end(
        'process 0, through which all others talk, cannot be reached: '
        f'{str(error).splitlines()[0]}'
      )
      return
    for index, line in sorted(lines.items()):
      if index != self._index:
        self._look_at(json.loads(line), index, now)

  def _look_at(self, told, index, now):
    beats, since = self._heard.get(index, (None, now))
    if told['over'] == 'finished':
      return
    if told['over']:
      self._give_up(told['over'])
    elif told['beats'] != beats:
      self._heard[index] = (told['beats'], now)
    elif now - since > self._silence:
      self._give_up(
        f'{told["name"]} is gone: nothing heard of it for {now - since:.0f} s; '
        f'it was {told["stage"]} at step {told["step"]}.'
      )

  def _tell(self):
    self._beats += 1
    stage, step, *_ = self._stage
    told = {
      'name': self._name,
      'beats': self._beats,
      'stage': stage,
      'step': step,
      'over': self._over,
    }
    self._board.put(json.dumps(told))

  def _give_up(self, reason):
    self._say(reason)
    self._end(reason)

  def _say(self, over):
    self._over = over
    if self._board is not None:
      with contextlib.suppress(jax.errors.JaxRuntimeError, OSError):
        self._tell()

  def __enter__(self) -> Self:
    threading.Thread(target=self._run, daemon=True).start()
    return self

  def _run(self):
    while not self._finished.wait(_LOOK_EVERY):
      self.look()

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if isinstance(error, jax.errors.JaxRuntimeError) and self._board:
      # Most likely a peer is gone: the thread finds out which, and ends this
      # process. Else the error is our own, and goes its way.
      self._silence = _SILENCE_AFTER_ERROR
      self.note('failing', self._stage[1], limited=False)
      time.sleep(_SILENCE_AFTER_ERROR + 3 * _LOOK_EVERY)
    if kind is None or issubclass(kind, SystemExit):
      self._say('finished')
    else:
      sentence = str(error).splitlines() or [kind.__name__]
      self._say(f'{self._name} has stopped: {sentence[0]}')
    self._finished.set()


def _end(reason: str) -> None:
  # The main thread hangs in a call that nothing interrupts.
  print(
    f'error: {reason} The same command goes on from the last checkpoint.',
    file=sys.stderr,
    flush=True,
  )
  os._exit(cli.RESUME)
