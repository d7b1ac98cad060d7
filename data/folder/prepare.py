"""Makes record files of any videos: of a folder per class, or of a CSV file.

  python -m data.folder.prepare --videos=DIR_OR_CSV --out=DIR

Every video is tried: its first and its last frame are decoded, or all of them
where they are encoded anew. Those that are missing or broken are left out and
named. The same command, given again, goes on where an interrupted one stopped.
"""

from mtnet_jax import prepare_command
from mtnet_jax.data import sources

if __name__ == '__main__':
  prepare_command.run(
    lambda values: sources.list_videos(values.videos),
    videos='The videos: a folder, or a CSV file.',
  )
