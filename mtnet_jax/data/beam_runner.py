"""Makes record files on a cluster, by Apache Beam.

Each element is a `shards.Shard` with all that a worker needs to know. The
workers read the videos and write the record files under the same paths as the
machine that starts them: on a file system that all of them share.
"""

import contextlib
import importlib.util
import io
import re
import threading
from collections.abc import Iterator, Sequence

from mtnet_jax.data import shards
from mtnet_jax.data.shards import Shard
from mtnet_jax.errors import UserError
from mtnet_jax.progress import Progress

_SECONDS_BETWEEN_LOOKS = 10.0
# Beam knows its other runners by their short names.
_DASK = 'apache_beam.runners.dask.dask_runner.DaskRunner'


def build(runner: str, options: Sequence[str]):
  """Builds an empty pipeline.

  Args:
    runner: Beam's name of what will run it, such as 'DirectRunner', or
      'DaskRunner'.
    options: further flags of Beam, such as '--direct_num_workers=4'.

  Returns:
    An `apache_beam.Pipeline`.

  Raises:
    UserError: Beam or Dask is not installed, or Beam refuses the runner or its
      options.
  """
  name = _DASK if runner == 'DaskRunner' else runner
  try:
    import apache_beam as beam  # here: it is an extra, and takes a second
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise UserError(
      f"--runner={runner} needs Apache Beam: pip install 'mtnet_jax[beam]'. "
      'Without --runner the records are made on this machine.'
    ) from error
  if name == _DASK and not importlib.util.find_spec('distributed'):
    raise UserError(
      f"--runner={runner} needs Dask: pip install 'mtnet_jax[dask]'."
    )
  complaint = io.StringIO()
  try:
    with contextlib.redirect_stderr(complaint):  # else a page of usage
      flags = PipelineOptions([f'--runner={name}', *options])
      pipeline = beam.Pipeline(options=flags)  # brings the runner's own flags
      flags.get_all_options()  # parses them: else they wait for the run
  except SystemExit as error:
    reason = complaint.getvalue().strip().rpartition('\n')[2]
    raise UserError(f"Beam's options {[*options]}: {reason}.") from error
  except (AttributeError, ImportError, ValueError) as error:
    raise UserError(f'--runner={runner}: {error}') from error
  if name == _DASK:
    _prepare_dask(pipeline.options)
  return pipeline


def _prepare_dask(all_options):
  """Makes each record file a task, and checks that the cluster is there.

  Raises:
    UserError: it is not.
  """
  import distributed
  from apache_beam.runners.dask.dask_runner import DaskOptions

  options = all_options.view_as(DaskOptions)
  if not options.npartitions and not options.partition_size:
    options.partition_size = 1  # else up to 128 would go to one worker
  if options.address is None:
    return  # a cluster in a file, or one that Dask starts on this machine
  given = {'timeout': options.timeout} if options.timeout else {}
  try:
    distributed.Client(options.address, set_as_default=False, **given).close()
  except (OSError, TypeError, ValueError) as error:
    raise UserError(
      f'--dask_client_address={options.address} is not the address of a Dask '
      f'scheduler that answers, such as tcp://HOST:8786: {error}.'
    ) from error


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
      f'record files are not there, such as {left[0]}. Did the cluster end '
      'early, or do its workers not share that folder? The same command goes '
      'on.'
    )


def _write(shard: Shard) -> None:
  # Dask forgets what a worker had done when it loses that worker.
  if shards.read_report(shard) is None:
    # One thread is used: Beam gives each core shards of its own.
    shards.write(shard)


def _user_error(error: Exception) -> Exception:
  """Returns the user's error, or the error itself if it is a defect of ours.

  Some runners pass on the exception of a worker, others its traceback as text;
  both add which step it was.
  """
  text = str(error)
  if isinstance(error.__cause__, ModuleNotFoundError):
    return UserError(
      f'A machine of the cluster says: {error.__cause__}. Install mtnet_jax '
      'with what the runner needs on all of them, the scheduler included.'
    )
  if isinstance(error, OSError) or type(error).__module__.startswith(
    'distributed.'
  ):
    return UserError(
      f'The cluster gave up: {text.rstrip(".")}. The same command resumes.'
    )
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
