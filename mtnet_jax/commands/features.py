"""Writes features: mtnet features --workdir=DIR --out=FILE.npz VIDEO [...].

A VIDEO is a file, a folder, a pattern, or an .npy file with an array of frames.
DIR holds a run, or a model in the form of Hugging Face's hub. FILE.npz gets two
arrays: `ids`, the paths of the videos, and `features`, float32 of the shape
(videos, channels), the input of the network's head averaged over the views that
evaluation cuts. Videos that cannot be read are reported and left out: the exit
code is 1 if there are some, and 2, without a file, if none can be read.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from mtnet_jax import cli, files
from mtnet_jax.commands.predict import tell_failures
from mtnet_jax.devices import host_memory
from mtnet_jax.errors import UserError, printable
from mtnet_jax.prediction import Predictor
from mtnet_jax.prediction.user_videos import InputError, find_videos
from mtnet_jax.progress import Progress
from mtnet_jax.runs import given
from mtnet_jax.runs.folder import file_path
from mtnet_jax.typing import Float


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_run(values, 'Folder of a run, or of a model from the hub.')
  given.define_flags(values)
  flags.DEFINE_string(
    'out', None, 'The .npz file to write.', required=True, flag_values=values
  )


def main(values: flags.FlagValues, names: Sequence[str]) -> int:
  """Writes the features of the videos that the command line names."""
  if not names:
    raise UserError(
      'No video is named. Give files, folders or patterns: mtnet features '
      '--workdir=DIR --out=FILE.npz VIDEO [VIDEO ...].'
    )
  if not values.out.endswith('.npz'):
    raise UserError(f'--out (={values.out}) must be a name that ends in .npz.')
  # A folder that cannot be written is reported before the work starts.
  out = file_path(values.out)
  host_memory.keep_freed_memory()
  predictor = Predictor(
    values.workdir, values.checkpoint, given=given.read(values)
  )
  found, failed = read_features(predictor, names)
  if found:
    write(out, found)
    print(printable(f'{out}: features of {len(found)} videos'))
  return tell_failures(failed, len(found) + len(failed), 'left out')


def read_features(
  predictor: Predictor, names: Sequence[str]
) -> tuple[dict[str, Float[np.ndarray, ' c']], list[InputError]]:
  """Computes the features of videos.

  Args:
    predictor: the model, of a run or of a hub folder.
    names: files, folders and patterns, as `find_videos` takes them.

  Returns:
    The features by the video's path, each the mean over the video's views; and
    why the others have none.

  Raises:
    UserError: what concerns every video, and never a single one.
  """
  videos, missing = find_videos(names)
  found = {}
  failed = [InputError(f'{name}: {why}.') for name, why in missing]
  with Progress('features', len(videos), 'videos') as progress:
    for video in videos:
      try:
        views = predictor.features(predictor.views(video))
        found[video] = views.mean(axis=0)
      except InputError as error:
        failed.append(error)
      progress.advance()
  return found, failed


def write(
  path: pathlib.Path, found: Mapping[str, Float[np.ndarray, ' c']]
) -> None:
  """Writes `ids` and `features`, with a row for each video.

  Args:
    path: the .npz file; what it held is replaced.
    found: the features of one video at least, by the video's path.

  Raises:
    OSError: the disk refuses it; the file is as it was.
  """
  with files.replacing(path) as partial, partial.open('wb') as file:
    np.savez(
      file, ids=np.array(list(found)), features=np.stack([*found.values()])
    )


COMMAND = cli.Command(main, define_flags, takes_arguments=True)

if __name__ == '__main__':
  cli.run(COMMAND)
