"""Writes the metrics of a run to `metrics.jsonl` and TensorBoard."""

import json
import os
import pathlib
import struct
import time
from collections.abc import Callable, Mapping

from absl import logging
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from mtnet_jax import files
from mtnet_jax.locations import Path, as_path, on_bucket


class MetricWriter:
  """Appends to `WORKDIR/metrics.jsonl` and `WORKDIR/tensorboard`.

  Every write happens in the caller's thread and is at once visible to readers.
  An error, of a full disk for instance, comes back to the caller, and the next
  write tries again: so both files hold only whole records.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    first_step: int,
    clock: Callable[[], float] = time.time,
  ):
    """Prepares to write what comes after `first_step`.

    Records of an interrupted run beyond its checkpoint are dropped with the
    first write, so that every step has one record.

    Args:
      workdir: the run's folder, which exists.
      first_step: the step that the run goes on from; 0 for a new one.
      clock: seconds since 1970, which TensorBoard shows.
    """
    self._workdir, self._first_step = as_path(workdir), first_step
    self._clock = clock
    self._records: _RecordFile | _Object | None = None
    self._events: _RecordFile | _Object | None = None

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes one record.

    Args:
      step: updates made so far.
      metrics: names such as `train/loss` and their values.

    Raises:
      OSError: it could not be written; what was written before is still whole.
    """
    values = {name: float(value) for name, value in metrics.items()}
    if self._records is None:
      self._records = self._open_records()
    line = json.dumps({'step': step, **values}) + '\n'
    self._records.append(line.encode())
    if self._events is None:
      self._events = self._open_events()
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in values.items()
    ]
    event = event_pb2.Event(
      step=step,
      wall_time=self._clock(),
      summary=summary_pb2.Summary(value=scalars),
    )
    self._events.append(_framed(event))

  def close(self) -> None:
    """Closes both files."""
    for file in (self._records, self._events):
      if file is not None:
        file.close()

  def _open_records(self) -> '_RecordFile | _Object':
    path = self._workdir / 'metrics.jsonl'
    content = _content(path)
    records, damaged = _parse(content)
    if damaged:
      aside = path.with_name(f'metrics-{int(self._clock())}.damaged')
      logging.warning(
        '%s: %s lines are no records of a run; the file is kept as %s.',
        path,
        damaged,
        aside.name,
      )
      files.write_bytes(aside, content)
    kept = [r for r in records if r['step'] <= self._first_step]
    files.write_text(path, ''.join(json.dumps(r) + '\n' for r in kept))
    return _open(path)

  def _open_events(self) -> '_RecordFile | _Object':
    folder = self._workdir / 'tensorboard'
    if not on_bucket(folder):
      folder.mkdir(exist_ok=True)
    now = self._clock()
    # TensorBoard reads a folder's files in the order of their names.
    path = folder / f'events.out.tfevents.{now:.6f}'
    version = event_pb2.Event(wall_time=now, file_version='brain.Event:2')
    # TensorBoard hides an earlier start's events from this step on.
    start = event_pb2.Event(
      wall_time=now,
      step=self._first_step + 1,
      session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
    )
    file = _open(path)
    try:
      file.append(_framed(version) + _framed(start))
    except OSError:
      file.close()
      path.unlink(missing_ok=True)
      raise
    return file


class _RecordFile:
  """A file to append to that never keeps a part of a record."""

  def __init__(self, path: pathlib.Path):
    # The file has no buffer: what a full disk refuses must not be written
    # later, perhaps in the middle of something else.
    self._file = path.open('ab', buffering=0)

  def append(self, record: bytes) -> None:
    end = self._file.seek(0, os.SEEK_END)
    rest = memoryview(record)
    with files.naming(pathlib.Path(self._file.name)):
      try:
        while rest:
          rest = rest[self._file.write(rest) :]
      except OSError:
        self._file.truncate(end)
        raise

  def close(self) -> None:
    self._file.close()


class _Object:
  """The same on a bucket, where each record uploads the whole file again."""

  def __init__(self, path: Path):
    self._path = path
    self._content = path.read_bytes() if path.exists() else b''

  def append(self, record: bytes) -> None:
    files.write_bytes(self._path, self._content + record)
    self._content += record

  def close(self) -> None:
    """Does nothing: no file is open."""


def _open(path: Path) -> _RecordFile | _Object:
  return _Object(path) if on_bucket(path) else _RecordFile(path)


def _framed(event: event_pb2.Event) -> bytes:
  """Returns an event as a TFRecord: length, event, and a checksum of each."""
  data = event.SerializeToString()
  length = struct.pack('<Q', len(data))
  checksums = [
    struct.pack('<I', masked_crc32c(part)) for part in (length, data)
  ]
  return length + checksums[0] + data + checksums[1]


class NoWriter:
  """Writes nothing: the writer of all processes but one."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes nothing, see `MetricWriter.write`."""

  def close(self) -> None:
    """Closes nothing, see `MetricWriter.close`."""


def read(path: str | os.PathLike) -> list[dict[str, float]]:
  """Returns the records of a `metrics.jsonl`; [] where there is no file.

  A last line that a killed process left unfinished is left out. So are lines
  that are no records, with a warning.
  """
  records, damaged = _parse(_content(as_path(path)))
  if damaged:
    logging.warning(
      '%s: %s lines are no records of a run, and are left out.', path, damaged
    )
  return records


def _content(path: Path) -> bytes:
  return path.read_bytes() if path.exists() else b''


def _parse(content: bytes) -> tuple[list[dict[str, float]], int]:
  """Returns the records, and the number of whole lines that are none."""
  *lines, last = content.split(b'\n')
  records = [record for line in [*lines, last] if (record := _record(line))]
  whole = sum(1 for line in lines if line.strip())
  return records, max(0, whole - len(records))


def _record(line: bytes) -> dict[str, float] | None:
  try:
    record = files.parse_json(line)
  except ValueError:
    return None
  is_one = isinstance(record, dict) and type(record.get('step')) is int
  if is_one and all(type(v) in (int, float) for v in record.values()):
    return record
  return None
