"""What do the weights of other classes save, on a small set of videos?

  python -m benchmarks.finetuning --out=DIR

Trains a network on ten classes of the stick figures, and then `mtnet finetune`
on the other five, of which it gets 20 videos each: with those weights, and by
the same recipe from nothing, three seeds. Writes DIR/finetuning.json:
accuracies on the five classes' test videos, and minutes. The same command
resumes with the next run.
"""

import itertools
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
# Keys of a recipe that `finetune` sets otherwise without weights.
_SAME = (
  'data.short_side',
  'data.crop_size',
  'data.input_size',
  'eval.crop_size',
  'eval.input_size',
  'train.num_steps',
  'train.eval_every',
  'train.checkpoint_every',
  'optim.warmup_steps',
)


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
  path = out / 'finetuning.json'
  rows = json.loads(path.read_text()) if path.exists() else []
  done = {(row['start'], row['seed']) for row in rows}
  for seed, start in itertools.product(_SEEDS, ('weights', 'nothing')):
    if (start, seed) in done:
      continue
    run, begin = out / f'{start}_{seed}', time.monotonic()
    flags = [f'--from={out / "pretrained"}']
    if start == 'nothing':
      flags = _recipe_of(out / f'weights_{seed}')
    _call(
      finetune.COMMAND,
      f'--data={new}',
      f'--out={run}',
      f'--config.seed={seed}',
      *flags,
    )
    controls = json.loads((run / 'evaluation/controls.json').read_text())
    minutes = (time.monotonic() - begin) / 60
    rows.append(
      {
        'start': start,
        'seed': seed,
        'top1': controls['top1'],
        'minutes': minutes,
      }
    )
    print(rows[-1], flush=True)
    path.write_text(json.dumps(rows, indent=2))


def _recipe_of(run: pathlib.Path) -> list[str]:
  """Flags for the steps and the clips of another run."""
  config = json.loads((run / 'config.json').read_text())
  return [
    f'--config.{key}={config[section][name]}'
    for key in _SAME
    for section, name in [key.split('.')]
  ]


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
    'out',
    None,
    'Folder to write the videos, the runs and finetuning.json to.',
    required=True,
    flag_values=values,
  )


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
