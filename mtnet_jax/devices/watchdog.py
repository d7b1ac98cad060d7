"""Ends a run that stands still, and names the process that is to blame.

A process whose peer is gone would wait for it without end, on some machines
without a word. So a thread of each process watches its own progress, reports it
to the others, and watches theirs.
"""

import contextlib
import json
import math
import os
import socket
import sys
import threading
import time
import traceback as traceback_module
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

import jax
from absl import logging

from mtnet_jax.errors import RESUME, UserError, printable

T = TypeVar('T')

# The stage in which a process waits for nobody else.
LOADER = 'waiting for its loader'

_CHECK_EVERY = 2.0  # seconds
# Seconds after which a process that reports nothing counts as gone.
_SILENCE_SECONDS = 60.0
# The same in a stage that may take long: a library may hold the interpreter.
_LONG_SILENCE_SECONDS = 300.0
# The same where the devices report already that a process is gone.
_SILENCE_AFTER_ERROR = 10.0
_DEFECT = 1


class MessageBoard(Protocol):
  """A place where each process puts a line that all processes can read."""

  def put(self, line: str) -> None:
    """Replaces this process's line."""

  def read(self) -> dict[int, str]:
    """Returns the lines by process."""


class Watchdog:
  """Watches a training; a context manager, and the only one of its process."""

  def __init__(
    self,
    stall_seconds: float,
    board: MessageBoard | None = None,
    *,
    index: int = 0,
    ailment: Callable[[], str] = str,
    clock: Callable[[], float] = time.monotonic,
    end: Callable[[str, int], None] | None = None,
  ):
    """Starts the clock.

    Args:
      stall_seconds: the time that a stage may take. Where others may be to
        blame, twice as long, so that these are the first to say so.
      board: the board of all processes; None: there is one only.
      index: the index of this process.
      ailment: says what else keeps this process from going on; '' if nothing.
      clock: seconds, rising.
      end: ends the process with a message and a code; None: at once.
    """
    self._stall_seconds, self._board, self._index = stall_seconds, board, index
    self._ailment, self._clock, self._end = ailment, clock, end or _end
    self._name = f'process {index} on {socket.gethostname()} ({os.getpid()})'
    self._failing = False
    self._beats, self._heard = 0, {}
    self._over, self._code = '', RESUME
    self._finished = threading.Event()
    self._stage = ('starting', 0, clock(), math.inf)

  def heartbeat(
    self, stage: str, step: int, limit: float | None = None
  ) -> None:
    """Says what this process does from now on.

    Args:
      stage: the name of the stage in messages, such as `LOADER`.
      step: the training step.
      limit: seconds that it may take, `math.inf` for any number; None:
        `stall_seconds`, twice as many where others may be to blame.
    """
    self._stage = (stage, step, self._clock(), limit)

  def iterate(self, batches: Iterable[T], step: int) -> Iterator[T]:
    """Yields the batches; limits the wait for each, not the time between.

    Args:
      batches: the batches to iterate over, to be scored, for instance.
      step: the training step.
    """
    batches = iter(batches)
    while True:
      self.heartbeat(LOADER, step)
      try:
        batch = next(batches)
      except StopIteration:
        self.heartbeat('validated', step, limit=math.inf)
        return
      self.heartbeat('validating', step, limit=math.inf)
      yield batch

  def check(self) -> None:
    """Checks once, and ends the process where something stands still."""
    stage, step, since, limit = self._stage
    now = self._clock()
    allowed = f'train.stall_timeout (={self._stall_seconds:g})'
    if limit is None:
      limit = self._stall_seconds * (1 if stage == LOADER else 2)
    else:
      allowed = f'the {limit:g} s that it may take'
    if now - since > limit:
      self._give_up(
        f'{self._name} has been {stage} for {now - since:.0f} s at step '
        f'{step}, longer than {allowed}.'
      )
    if ailment := self._ailment():
      self._give_up(f'{self._name}: {ailment}')
    if self._board is None:
      return
    try:
      self._tell()
      lines = self._board.read()
    except (jax.errors.JaxRuntimeError, OSError) as error:
      if self._finished.is_set():
        return  # JAX has ended the check.
      self._end(
        'process 0, through which all others talk, cannot be reached: '
        f'{str(error).splitlines()[0]}.',
        RESUME,
      )
      return
    silent = [
      self._check_peer(json.loads(line), index, now)
      for index, line in sorted(lines.items())
      if index != self._index
    ]
    seconds, told = max(filter(None, silent), default=(0, None), key=_first)
    if told:
      self._give_up(
        f'{told["name"]} is gone: nothing heard of it for {seconds:.0f} s; it '
        f'was {told["stage"]} at step {told["step"]}.'
      )

  def _check_peer(self, told, index, now):
    """Ends if a peer has; returns the silence and the line of a silent one."""
    beats, since = self._heard.get(index, (None, now))
    if told['over'] == 'finished':
      return None
    if told['over']:
      self._give_up(told['over'], told['code'])
    elif told['beats'] != beats:
      self._heard[index] = (told['beats'], now)
    elif now - since > self._patience_with(told):
      return now - since, told
    return None

  def _patience_with(self, told):
    if self._failing:
      return _SILENCE_AFTER_ERROR
    return _SILENCE_SECONDS if told['limited'] else _LONG_SILENCE_SECONDS

  def _tell(self):
    self._beats += 1
    stage, step, _, limit = self._stage
    told = {
      'name': self._name,
      'beats': self._beats,
      'stage': stage,
      'step': step,
      'limited': limit != math.inf,
      'over': self._over,
      'code': self._code,
    }
    self._board.put(json.dumps(told))

  def _give_up(self, reason, code=RESUME):
    self._say(reason, code)
    if self._board is not None and self._index == 0:
      # The board is lost with process 0, so the others must have read it.
      time.sleep(3 * _CHECK_EVERY)
    self._end(reason, code)

  def _say(self, over, code=0):
    self._over, self._code = over, code
    if self._board is not None:
      with contextlib.suppress(jax.errors.JaxRuntimeError, OSError):
        self._tell()

  def __enter__(self) -> Self:
    threading.Thread(target=self._run, daemon=True).start()
    return self

  def _run(self):
    while not self._finished.wait(_CHECK_EVERY):
      try:
        self.check()
      except Exception:  # whatever it is, the next check may tell more
        logging.exception('A check of the other processes failed')

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if kind is None or issubclass(kind, SystemExit):
      self._say('finished')
    elif self._board is not None:
      self._fail(error)
    self._finished.set()

  @contextlib.contextmanager
  def blaming_others(self) -> Iterator[None]:
    """Finds out which process is to blame for an error in a collective.

    An error inside the context may come from a peer that is gone. What is left
    behind waits for the peers, so they are told before, unless they all know.
    """
    try:
      yield
    except BaseException as error:
      known = isinstance(error, SystemExit) or (
        isinstance(error, UserError) and error.known_to_all
      )
      if self._board is not None and not known:
        # The thread finds out who is gone, and ends this process meanwhile.
        self._failing = True
        self.heartbeat('failing', self._stage[1], limit=math.inf)
        time.sleep(_SILENCE_AFTER_ERROR + 3 * _CHECK_EVERY)
        self._fail(error)
      raise

  def _fail(self, error):
    """Ends this process, and with it the others, for an error of its own."""
    mistake = isinstance(error, UserError)
    if not mistake:
      traceback_module.print_exception(error)
    sentence = (str(error) or type(error).__name__).splitlines()[0]
    # The process ends at once: an orderly exit would wait for processes that
    # wait for this one.
    self._give_up(
      f'{self._name} has stopped: {sentence}',
      error.code if mistake else _DEFECT,
    )


def _first(pair):
  return pair[0]


def _end(reason: str, code: int) -> None:
  # The process ends at once: the main thread may hang in a call that nothing
  # interrupts.
  hint = ' The same command resumes from the last checkpoint.'
  print(
    f'error: {printable(reason)}{hint if code == RESUME else ""}',
    file=sys.stderr,
    flush=True,
  )
  os._exit(code)
