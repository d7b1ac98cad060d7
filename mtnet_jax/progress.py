"""Shows the progress of long work: a bar for people, lines for log files."""

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
  """Shows the share done, the rate and the time left on stderr.

  It is a context manager. On a terminal it shows a bar; elsewhere it prints a
  line now and then, so that the log of a batch job stays readable.
  """

  def __init__(
    self,
    task: str,
    total: int,
    unit: str,
    *,
    done: int = 0,
    silent: bool = False,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts at `done` of `total`.

    Args:
      task: the name of the task, for instance 'training'.
      total: units in all.
      unit: the unit of the count, for instance 'steps'.
      done: units that an earlier run has finished; they do not count as speed.
      silent: shows nothing, for one of several processes.
      clock: seconds, rising.
    """
    self._task, self._total, self._unit = task, total, unit
    self._first = self._done = done
    self._clock, self._silent = clock, silent
    self._start = self._last_line = clock()
    self._told = None  # units, in the last line
    self._bar = None
    console = rich.console.Console(stderr=True)
    if console.is_terminal and not silent:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}'),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn(f'{unit}  {{task.fields[rate]}}'),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[note]}'),
        console=console,
      )
      self._bar_task = self._bar.add_task(
        task, total=total, completed=done, rate='', note=''
      )

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if self._bar:
      self._bar.stop()
    elif error is None and self._told != self._done:
      self._print_line('')

  def advance(self, units: int = 1, note: str = '') -> None:
    """Counts `units` more as done.

    Args:
      units: since the last call.
      note: shown behind, for instance the loss; '' keeps the last one.
    """
    self._done += units
    if self._bar:
      fields = {'rate': f'{self._rate():.3g}/s'} | (
        {'note': note} if note else {}
      )
      self._bar.update(self._bar_task, completed=self._done, **fields)
    elif self._clock() - self._last_line > _SECONDS_BETWEEN_LINES:
      self._print_line(note)

  def _rate(self) -> float:
    seconds = self._clock() - self._start
    return (self._done - self._first) / seconds if seconds > 0 else 0.0

  def _print_line(self, note: str) -> None:
    if self._silent:
      return
    self._last_line, self._told = self._clock(), self._done
    rate = self._rate()
    left = (self._total - self._done) / rate if rate else float('nan')
    line = (
      f'{self._task}: {self._done}/{self._total} {self._unit}, '
      f'{rate:.3g}/s, {_clock_time(left)} left'
    )
    with contextlib.suppress(OSError):  # a log on a full disk stops no work
      print(f'{line}  {note}'.rstrip(), file=sys.stderr, flush=True)


def _clock_time(seconds: float) -> str:
  if seconds != seconds:  # NaN: no rate yet
    return '?'
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'
