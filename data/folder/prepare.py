"""Makes record files of your own videos, from class folders or a CSV file.

  mtnet prepare folder --videos=DIR_OR_CSV --out=DIR

The first and the last frame of every video are decoded to test it, or all
frames if it is re-encoded. A folder of numbered images counts as a video and is
always encoded, with or without --short_side. Videos that are missing or broken
are reported and left out. The same command resumes interrupted work.
"""

from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import prepare_command, sources


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_float(
    'frames_per_second',
    None,
    'Frame rate of folders of images for which the CSV file gives none; '
    'without it 25.',
    flag_values=values,
  )


COMMAND = prepare_command.make(
  lambda values: sources.list_videos(values.videos, values.frames_per_second),
  videos='Videos: a folder with a folder for each class, or a CSV file.',
  define_flags=_define_flags,
)

if __name__ == '__main__':
  cli.run(COMMAND)
