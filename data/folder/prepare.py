"""Makes record files of any videos: of a folder per class, or of a CSV file.

  mtnet prepare folder --videos=DIR_OR_CSV --out=DIR

Every video is tried: its first and its last frame are decoded, or all of them
where they are encoded anew. Those that are missing or broken are left out and
named. The same command, given again, goes on where an interrupted one stopped.
"""

from mtnet_jax import cli
from mtnet_jax.data import prepare_command, sources

COMMAND = prepare_command.make(
  lambda values: sources.list_videos(values.videos),
  videos='The videos: a folder, or a CSV file.',
)

if __name__ == '__main__':
  cli.run(COMMAND)
