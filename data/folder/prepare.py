"""Makes record files of any videos: of a folder per class, or of a CSV file.

  python -m data.folder.prepare --videos=DIR_OR_CSV --out=DIR

Every video is tried: its first and its last frame are decoded, or all of them
where they are encoded anew. Those that are missing or broken are left out and
named. The same command, given again, goes on where an interrupted one stopped.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.data import preparation, sources


def main(_: Sequence[str]) -> None:
  """Prepares what the flags name and prints what came of it."""
  values = flags.FLAGS
  manifest = preparation.write(
    sources.list_videos(values.videos),
    values.out,
    values.num_shards,
    values.num_frames,
    values.short_side,
  )
  preparation.show(manifest, values.out)


def _define_flags():
  # Not on import: the other data sets' commands have flags of these names.
  flags.DEFINE_string('videos', None, 'The videos: a folder, or a CSV file.')
  flags.DEFINE_string('out', None, 'The folder that gets the records.')
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
  flags.mark_flags_as_required(['videos', 'out'])


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
