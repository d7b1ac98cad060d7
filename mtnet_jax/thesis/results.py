r"""Writes `docs/results.md` and its figures: published numbers beside ours.

  mtnet results [--out=docs] \
    [--run="MTNet-S on my data=runs/mine" ...]

The published figures are those of `mtnet_jax/thesis/tables`. Ours are counted
again, which takes a few minutes on a CPU, and are also written to
`results.csv`. `--run` adds evaluated runs of your own to the figures.
"""

import csv
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from mtnet_jax import cli, files, locations, models
from mtnet_jax.analysis import cost
from mtnet_jax.errors import UserError, printable
from mtnet_jax.progress import Progress
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import model as model_lib
from mtnet_jax.thesis import accuracy_over_cost, published, results_page
from mtnet_jax.thesis.published import Request
from mtnet_jax.thesis.results_page import Count, Run


def count(request: Request) -> Count:
  """Returns what a network has, as `published.NUM_CLASSES` classes need it.

  Args:
    request: one of `published.requests`.
  """
  model = models.build(
    request.network, published.NUM_CLASSES, **dict(request.overrides)
  )
  total = cost.count(model, (*request.clip, 3)).total
  return Count(total.parameters, total.macs)


def write_counts(
  counts: Mapping[Request, Count], path: str | pathlib.Path
) -> None:
  """Writes our figures as CSV.

  Args:
    counts: the counts by request.
    path: the CSV file to write.
  """
  with (
    files.replacing(pathlib.Path(path)) as partial,
    partial.open('w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['network', 'overrides', 'clip', 'parameters', 'macs'])
    for request, found in counts.items():
      overrides = ' '.join(f'{k}={v}' for k, v in request.overrides)
      clip = 'x'.join(map(str, request.clip))
      row = (request.network, overrides, clip, found.parameters, found.macs)
      writer.writerow(row)


def read_run(text: str) -> Run:
  """Reads what a user's own run is and how well it does.

  Args:
    text: `LABEL=WORKDIR`; a label has no `=`.

  Returns:
    The run, its network counted at the clip of the evaluation.

  Raises:
    UserError: the text is of another form, or the workdir holds no evaluated
      run.
  """
  label, _, workdir = text.partition('=')
  if not (label and workdir):
    raise UserError(
      f'--run={text!r} must be LABEL=WORKDIR: --run="MTNet-S on my '
      'data=runs/mine" for instance.'
    )
  directory = locations.as_path(workdir)
  config_path = directory / 'config.json'
  config = run_folder.read_config(config_path)
  classes = len(run_folder.read_class_names(directory / 'labels.txt'))
  clip = (config.data.num_frames, *(config.eval.input_size,) * 2)
  top1 = _read_top1(directory / 'evaluation/summary.json')
  with model_lib.explained(config_path):
    model = model_lib.build_model(config, classes)
    total = cost.count(model, (*clip, 3)).total
  return Run(
    label=label,
    workdir=workdir,
    network=config.model.name,
    overrides=tuple(
      (key, value)
      for key, value in config.model.items()
      if key != 'name' and value is not None
    ),
    num_classes=classes,
    clip=clip,
    views=config.eval.num_clips * config.eval.num_crops,
    top1=top1,
    count=Count(total.parameters, total.macs),
  )


def _read_top1(path: pathlib.Path) -> float:
  try:
    top1 = files.parse_json(path.read_text('utf-8'))['top1']
    if not 0 <= top1 <= 1:
      raise ValueError(f'top1 (={top1}) is not in [0, 1]')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} is not what mtnet eval writes: {error}. Evaluate the run with '
      'mtnet eval first.'
    ) from error
  return top1


def write(out: str | pathlib.Path, runs: Sequence[Run]) -> None:
  """Counts every network and writes page, figures and our counts.

  Args:
    out: folder, made if need be.
    runs: a user's own.

  Raises:
    UserError: the published figures are missing, or the folder or a file in it
      cannot be written.
  """
  out = pathlib.Path(out)
  names = ('results.md', 'results.csv', *accuracy_over_cost.FIGURES)
  page, table, *_ = [run_folder.file_path(out / name) for name in names]
  tables = published.read_all()
  _, contradictions = published.read_csv(
    published.DIRECTORY / 'contradictions.csv'
  )
  counts = {}
  requests = published.requests(tables)
  with Progress('counting', len(requests), 'networks') as progress:
    for request in requests:
      counts[request] = count(request)
      progress.advance()
  write_counts(counts, table)
  stars = [
    accuracy_over_cost.Star(
      run.label,
      run.count.macs / 1e9,
      100 * run.top1,
      run.count.parameters / 1e6,
    )
    for run in runs
  ]
  paths = accuracy_over_cost.draw_all(tables, stars, out)
  files.write_text(
    page, results_page.render(tables, counts, contradictions, runs)
  )
  for path in (page, table, *paths):
    print(printable(str(path)))


def main(out: str, runs: Sequence[str]) -> None:
  """Writes what the flags name.

  Args:
    out: see `write`.
    runs: see `read_run`.

  Raises:
    UserError: whatever either raises.
  """
  write(out, [read_run(text) for text in runs])


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'out',
    'docs',
    'Folder to write results.md, results.csv and the figures to.',
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    'run',
    [],
    'LABEL=WORKDIR, an evaluated run to add to the figures',
    flag_values=values,
  )


COMMAND = cli.Command(
  lambda values, _: main(values.out, values.run), define_flags
)

if __name__ == '__main__':
  cli.run(COMMAND)
