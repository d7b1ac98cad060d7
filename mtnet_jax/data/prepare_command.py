"""What do the commands `mtnet prepare NAME` have in common?"""

from collections.abc import Callable, Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import preparation
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError


def make(
  list_videos: Callable[[flags.FlagValues], Listing],
  *,
  videos: str,
  annotations: str = '',
  define_flags: Callable[[flags.FlagValues], None] = lambda _: None,
) -> cli.Command:
  """Returns a command that makes records and prints what came of it.

  Args:
    list_videos: returns what is to be recorded, given the parsed flags; may
      raise `UserError`.
    videos: tells the user what --videos is.
    annotations: tells what --annotations is; '': there is no such flag.
    define_flags: declares the flags of this data set alone.
  """

  def define(values: flags.FlagValues) -> None:
    define_flags(values)
    _define_flags(values, videos, annotations)

  def main(values: flags.FlagValues, _: Sequence[str]) -> None:
    if values.beam_options and not values.runner:
      raise UserError(
        f'--beam_options={values.beam_options[0]} is for Apache Beam: give '
        '--runner too, or leave it out.'
      )
    manifest = preparation.write(
      list_videos(values),
      values.out,
      values.num_shards,
      values.num_frames,
      values.short_side,
      values.runner,
      values.beam_options,
    )
    preparation.show(manifest, values.out)

  # --help shows the text of the data set's file.
  main.__module__ = list_videos.__module__
  return cli.Command(main, define, resumes=True)


def define_split(values: flags.FlagValues, num_splits: int) -> None:
  """Declares `--split`, for data sets that are divided in several ways."""
  flags.DEFINE_integer(
    'split',
    1,
    'Number of the official division into training and test videos.',
    1,
    num_splits,
    flag_values=values,
  )


def _define_flags(values: flags.FlagValues, videos: str, annotations: str):
  flags.DEFINE_string('videos', None, videos, required=True, flag_values=values)
  if annotations:
    flags.DEFINE_string(
      'annotations', None, annotations, required=True, flag_values=values
    )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the records to.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_shards',
    0,
    'Number of record files per split; 0 makes one for each 256 MiB of videos.',
    0,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_frames',
    16,
    'Number of frames below which a video is reported as short; it is kept.',
    1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'short_side',
    0,
    'Length in pixels of the shorter side that videos are re-encoded with; 0 '
    'stores the files as they are.',
    0,
    flag_values=values,
  )
  flags.DEFINE_string(
    'runner',
    '',
    'Name of the Apache Beam runner that does the work; without it this '
    'machine does it, without Beam.',
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    'beam_options',
    [],
    'Option for Apache Beam, such as --region=europe-west4; needs --runner',
    flag_values=values,
  )
