"""Writes the results of a table: a row for each seed, a line for each run.

Every figure is read from the files of the workdirs, so that a resumed table, or
one that `mtnet train` and `eval` made, gives the same results.
"""

import csv
import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence

from mtnet_jax import files
from mtnet_jax.analysis import cost
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.experiments import plot, scored
from mtnet_jax.experiments.plan import Job, Plan
from mtnet_jax.experiments.summary import Line, find_missing, summarize
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import metric_writer
from mtnet_jax.runs import model as model_lib


@dataclasses.dataclass(frozen=True)
class Row:
  """A run with one seed, scored.

  Attributes:
    run: the run's name in the table.
    seed: the run's seed.
    top1: the top-1 accuracy, in [0, 1].
    top5: the top-5 accuracy, in [0, 1].
    videos: the number of videos that were scored.
    training_seconds: the seconds of all steps, without compiling, validating
      and saving.
    steps: the number of training steps.
    parameters: the number of the network's parameters.
    gmacs: 1e9 multiply-adds of a training clip's forward pass.
  """

  run: str
  seed: int
  top1: float
  top5: float
  videos: int
  training_seconds: float
  steps: int
  parameters: int
  gmacs: float


def write(table: Plan, failed: Mapping[tuple[str, int], str]) -> None:
  """Writes `results.csv`, `summary.json`, `table.md` and `plot.png`.

  Args:
    table: the plan; what is not scored yet is left out.
    failed: the failures and their reasons, by run and seed.

  Raises:
    UserError: two runs that are compared were scored on different data.
  """
  found = {job: scored.read(job.workdir) for job in table.jobs}
  found = {
    job: predictions for job, predictions in found.items() if predictions
  }
  rows = [_row(job, predictions) for job, predictions in found.items()]
  _write_csv(rows, table.out / 'results.csv')
  lines, missing = summarize(table, found), find_missing(found)
  summary = {
    'table': table.table,
    'varies': table.varies,
    'runs': [dataclasses.asdict(line) for line in lines],
    'failed': [
      {'run': run, 'seed': seed, 'why': why}
      for (run, seed), why in failed.items()
    ],
    'not_scored': [
      {'run': job.run, 'seed': job.seed, 'videos': videos}
      for job, videos in missing.items()
    ],
  }
  text = json.dumps(summary, indent=2) + '\n'
  files.write_text(table.out / 'summary.json', text)
  text = _to_markdown(table, lines, failed, missing)
  files.write_text(table.out / 'table.md', text)
  if lines:
    plot.draw(table, lines, table.out / 'plot.png')


def _row(job: Job, predictions: Predictions) -> Row:
  records = metric_writer.read(job.workdir / 'metrics.jsonl')
  classes = run_folder.read_class_names(job.workdir / 'labels.txt')
  model = model_lib.build_model(job.config, len(classes))
  costs = _cost(model, model_lib.training_clip_shape(job.config))
  return Row(
    run=job.run,
    seed=job.seed,
    top1=predictions.accuracy(1),
    top5=predictions.accuracy(5),
    videos=len(predictions.ids),
    training_seconds=sum(r.get('train/seconds', 0) for r in records),
    steps=max((r['step'] for r in records), default=0),
    parameters=costs.parameters,
    gmacs=costs.macs / 1e9,
  )


@functools.cache  # seeds differ in nothing here
def _cost(model, clip_shape) -> cost.ModuleCosts:
  return cost.count(model, clip_shape).total


_MOST_NAMED = 3  # of videos, in table.md; summary.json has all
_DIGITS = {'top1': 6, 'top5': 6, 'training_seconds': 1, 'gmacs': 6}


def _write_csv(rows: Sequence[Row], path: pathlib.Path) -> None:
  with (
    files.replacing(path) as partial,
    partial.open('w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.DictWriter(file, [f.name for f in dataclasses.fields(Row)])
    writer.writeheader()
    for row in rows:
      values = dataclasses.asdict(row)
      rounded = {
        name: f'{values[name]:.{digits}f}' for name, digits in _DIGITS.items()
      }
      writer.writerow(values | rounded)


_HEAD = """# Table {table}: {varies}

| run | top-1 | ± seeds | ± videos | of each seed | alone right | p | p, Holm |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_FOOT = """
top-1: of the last checkpoint, in percent of the videos that a run could score,
the mean over {seeds}. ±: half of the 95 % confidence interval by Student's t,
in points; over seeds: what training again could change; over videos: what other
videos could change. Alone right: of the videos that both runs could score,
those that one has right and the other has not, summed over the seeds. p:
McNemar's test on these two sums, clustered by video, which holds for these
trained networks. Holm: corrected for all p of the table.
"""


def _to_markdown(
  table: Plan,
  lines: Sequence[Line],
  failed: Mapping[tuple[str, int], str],
  missing: Mapping[Job, Sequence[str]],
) -> str:
  by_run = {line.run: line for line in lines}
  text = _HEAD.format(table=table.table, varies=table.varies)
  for run in table.against:
    cells = _cells(by_run[run]) if run in by_run else [run, *['–'] * 7]
    text += f'| {" | ".join(cells)} |\n'
  seeds = sorted({job.seed for job in table.jobs})
  what = 'seed' if len(seeds) == 1 else 'seeds'
  text += _FOOT.format(seeds=f'{what} {", ".join(map(str, seeds))}')
  left = len(table.jobs) - sum(len(line.seeds) for line in lines) - len(failed)
  if left:
    text += f'\nNot finished: {left} of {len(table.jobs)} runs.\n'
  for (run, seed), why in failed.items():
    text += f'\nFailed: {run}, seed {seed}: {why}\n'
  for job, videos in missing.items():
    names = [*videos[:_MOST_NAMED], *['…'] * (len(videos) > _MOST_NAMED)]
    text += (
      f'\nNot scored: {job.run}, seed {job.seed}: {len(videos)} of the videos '
      f'that others scored: {", ".join(names)}\n'
    )
  return text


def _cells(line: Line) -> list[str]:
  def percent(share: float | None) -> str:
    return '–' if share is None else f'{100 * share:.1f}'

  found = line.comparison
  return [
    line.run,
    *map(percent, (line.mean, line.seed_interval, line.video_interval)),
    ', '.join(map(percent, line.top1)),
    *(
      ['–'] * 3
      if found is None
      else [
        f'{line.against} {found.only_a}, this {found.only_b}',
        f'{found.p_value:.2g}',
        f'{line.holm_p:.2g}',
      ]
    ),
  ]
