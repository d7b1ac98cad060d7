"""Makes record files of any videos: of a folder per class, or of a CSV file.

  mtnet prepare folder --videos=DIR_OR_CSV --out=DIR

Every video is tried: its first and its last frame are decoded, or all of them
where they are encoded anew. A folder of numbered images is a video, and is
always encoded, --short_side or not. Those that are missing or broken are left
out and named. The same command, given again, goes on where an interrupted one
stopped.
"""

from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import prepare_command, sources


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_float(
    'frames_per_second',
    None,
    'Of folders of images, where the CSV file does not say it; unset: 25.',
    flag_values=values,
  )


COMMAND = prepare_command.make(
  lambda values: sources.list_videos(values.videos, values.frames_per_second),
  videos='The videos: a folder, or a CSV file.',
  define_flags=_define_flags,
)

if __name__ == '__main__':
  cli.run(COMMAND)
