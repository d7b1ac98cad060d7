"""What do the weights of other classes save, on a small set of videos?

  python -m benchmarks.finetuning --out=DIR

Trains a network on ten classes of the stick figures, and then `mtnet finetune`
on the other five, of which it gets 20 videos each: with those weights and from
nothing, three seeds. Writes DIR/finetuning.json: accuracies on the five
classes' test videos, and minutes.
"""

import json
import pathlib
import time
from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.commands import finetune, train
from mtnet_jax.datasets.stick_figures import prepare

_NEW = 5  # classes, the last of the alphabet
_VIDEOS = 20  # of each
_SEEDS = range(3)


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Prepares, pretrains and fine-tunes below the folder of the flags."""
  out = pathlib.Path(values.out).absolute()
  data = out / 'data'
  _call(prepare.COMMAND, f'--out={data}')
  old, new = out / 'old', out / 'new'
  _select(data, old, new)
  _call(
    train.COMMAND,
    '--config=quickstart',
    f'--config.data.dir={old}',
    f'--workdir={out / "pretrained"}',
  )
  rows = []
  for seed in _SEEDS:
    for start in ('weights', 'nothing'):
      run = out / f'{start}_{seed}'
      begin = time.monotonic()
      _call(
        finetune.COMMAND,
        f'--data={new}',
        f'--out={run}',
        f'--config.seed={seed}',
        *([f'--from={out / "pretrained"}'] if start == 'weights' else []),
      )
      summary = json.loads((run / 'evaluation/controls.json').read_text())
      rows.append(
        {
          'start': start,
          'seed': seed,
          'top1': summary['top1'],
          'minutes': (time.monotonic() - begin) / 60,
        }
      )
      print(rows[-1], flush=True)
      (out / 'finetuning.json').write_text(json.dumps(rows, indent=2))


def _select(data: pathlib.Path, old: pathlib.Path, new: pathlib.Path) -> None:
  """Divides the classes into two data sets, by links."""
  classes = sorted(path.name for path in (data / 'train').iterdir())
  for split in ('train', 'val', 'test'):
    for name in classes:
      videos = sorted((data / split / name).iterdir())
      target = old
      if name in classes[-_NEW:]:
        target = new
        if split == 'val':
          continue  # `finetune` makes its own
        videos = videos[:_VIDEOS] if split == 'train' else videos
      folder = target / split / name
      folder.mkdir(parents=True, exist_ok=True)
      for video in videos:
        link = folder / video.name
        if not link.exists():
          link.symlink_to(video)


def _call(command: cli.Command, *arguments: str) -> None:
  code = cli.call(command, *arguments)
  if code:
    raise SystemExit(code)


def define_flags(values: flags.FlagValues) -> None:
  """Declares the flag."""
  flags.DEFINE_string(
    'out', None, 'Folder of all of it.', required=True, flag_values=values
  )


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
