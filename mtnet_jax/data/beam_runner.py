"""Record files made on a cluster, by Apache Beam.

Each element is a `shards.Shard` with all that a worker needs to know. The
workers read the videos and write the record files under the same paths as the
machine that starts them: on a file system that all of them share.
"""

import contextlib
import io
import re
import threading
from collections.abc import Iterator, Sequence

from mtnet_jax.data import shards
from mtnet_jax.data.shards import Shard
from mtnet_jax.errors import UserError
from mtnet_jax.progress import Progress

_SECONDS_BETWEEN_LOOKS = 10.0


def build(runner: str, options: Sequence[str]):
  """Builds an empty pipeline.

  Args:
    runner: Beam's name of what will run it, such as 'DirectRunner'.
    options: further flags of Beam, such as '--direct_num_workers=4'.

  Returns:
    An `apache_beam.Pipeline`.

  Raises:
    UserError: Beam is not installed, or refuses the runner or its options.
  """
  try:
    import apache_beam as beam  # here: it is an extra, and takes a second
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise UserError(
      f"--runner={runner} needs Apache Beam: pip install 'mtnet_jax[beam]'. "
      'Without --runner the records are made on this machine.'
    ) from error
  complaint = io.StringIO()
  try:
    with contextlib.redirect_stderr(complaint):  # else a page of usage
      flags = PipelineOptions([f'--runner={runner}', *options])
      flags.get_all_options()  # parses them: else they wait for the run
      return beam.Pipeline(options=flags)
  except SystemExit as error:
    reason = complaint.getvalue().strip().rpartition('\n')[2]
    raise UserError(f"Beam's options {[*options]}: {reason}.") from error
  except (AttributeError, ImportError, ValueError) as error:
    raise UserError(f'--runner={runner}: {error}') from error


def run(pipeline, unfinished: Sequence[Shard]) -> None:
  """Writes record files and their reports, as `shards.write` does.

  Args:
    pipeline: a pipeline from `build`, to be run once.
    unfinished: the record files, whose reports are not there.

  Raises:
    UserError: a file cannot be written, or the workers left some out.
  """
  import apache_beam as beam

  _ = (
    pipeline
    | beam.Create(unfinished)
    | beam.Reshuffle()  # else one worker would get them all
    | 'write records' >> beam.Map(_write)
  )
  with _watched(unfinished):
    try:
      state = pipeline.run().wait_until_finish()
    except Exception as error:
      raise _user_error(error) from error
  left = [s.path for s in unfinished if shards.read_report(s) is None]
  if left:
    raise UserError(
      f'The pipeline ended as {state}, and {len(left)} of {len(unfinished)} '
      f'record files are not there, such as {left[0]}. Do all its workers '
      'share that folder? The same command goes on.'
    )


def _write(shard: Shard) -> None:
  # One thread: Beam gives each core shards of its own.
  shards.write(shard)


def _user_error(error: Exception) -> Exception:
  """Returns the UserError that a worker raised, if that is what happened.

  Some runners pass on the exception, others its traceback as text; both add
  which step it was.
  """
  text = str(error)
  if not isinstance(error, UserError):
    name = f'{UserError.__module__}.{UserError.__qualname__}: '
    if name not in text:
      return error
    text = text.rpartition(name)[2]
  return UserError(re.split(r" \[while running '|\n", text)[0])


@contextlib.contextmanager
def _watched(unfinished: Sequence[Shard]) -> Iterator[None]:
  """Shows the progress meanwhile, by the reports that are there."""
  ended = threading.Event()

  def watch():
    left = list(unfinished)
    total = sum(len(shard.examples) for shard in left)
    with Progress('preparing', total, 'videos') as progress:
      while left:
        over = ended.wait(_SECONDS_BETWEEN_LOOKS)
        looked, left = left, []
        for shard in looked:
          if shard.report_path.exists():
            progress.advance(len(shard.examples))
          else:
            left.append(shard)
        if over:
          return

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
