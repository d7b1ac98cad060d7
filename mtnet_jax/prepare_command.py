"""The flags and the end that all `python -m data.NAME.prepare` share."""

import sys
from collections.abc import Callable

from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import preparation
from mtnet_jax.data.sources import Listing
from mtnet_jax.errors import UserError


def run(
  list_videos: Callable[[flags.FlagValues], Listing],
  *,
  videos: str,
  annotations: str = '',
) -> None:
  """Makes records of what the command line names, and prints what came of it.

  Flags of the data set alone must be declared before. None of this happens on
  import, since other data sets' commands have flags of the same names.

  Args:
    list_videos: returns what is to be recorded, given the parsed flags; may
      raise `UserError`.
    videos: tells the user what --videos is.
    annotations: tells what --annotations is; '': there is no such flag.
  """
  _define_flags(videos, annotations)

  def main(_) -> None:
    values = flags.FLAGS
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

  cli.run(main, goes_on=True)


def _define_flags(videos: str, annotations: str):
  flags.DEFINE_string('videos', None, videos, required=True)
  if annotations:
    flags.DEFINE_string('annotations', None, annotations, required=True)
  flags.DEFINE_string(
    'out', None, 'The folder that gets the records.', required=True
  )
  flags.DEFINE_integer(
    'num_shards',
    0,
    'Record files a split; 0: one for each 256 MiB of videos.',
    0,
  )
  flags.DEFINE_integer(
    'num_frames', 16, 'Videos with fewer frames are named as short.', 1
  )
  flags.DEFINE_integer(
    'short_side', 0, 'Pixels to encode the videos with; 0: as they are.', 0
  )
  flags.DEFINE_string(
    'runner', '', "An Apache Beam runner's name; empty: on this machine."
  )
  flags.DEFINE_multi_string(
    'beam_options', [], 'A flag for Beam, such as --region=x.'
  )
  for flag in flags.FLAGS.get_flags_for_module(__name__):  # --help shows them
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
