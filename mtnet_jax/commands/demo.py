"""Shows the library at work on drawn videos: mtnet demo [--out=DIR].

Draws a data set of 1,845 videos of stick figures in fifteen actions, trains
`mtnet_xs` on it, scores the test videos and trivial controls, and explains one
of the videos. This takes about six minutes on two cores. Then open
DIR/explanation/report.html in a browser.
"""

from collections.abc import Iterator, Sequence

from absl import flags

from mtnet_jax import cli, locations
from mtnet_jax.commands import eval as eval_command
from mtnet_jax.commands import explain, train
from mtnet_jax.datasets.stick_figures import prepare


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
    'out',
    'runs/demo',
    'Folder to write the run, its data and its explanation to.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'static',
    False,
    'Also train and score a network that cannot see the direction of time.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> int:
  """Runs one command after the other until one fails; returns its code."""
  out = str(locations.local_path(values.out))
  for command, arguments in _steps(out, values.static):
    if code := cli.call(command, *arguments):
      return code
  return 0


def _steps(
  out: str, static: bool
) -> Iterator[tuple[cli.Command, Sequence[str]]]:
  data = f'{out}/data'
  yield prepare.COMMAND, [f'--out={data}']
  yield from _run('quickstart', data, out)
  video = f'{data}/test/high_five/0000.mp4'
  yield (
    explain.COMMAND,
    [f'--workdir={out}', f'--video={video}', f'--out={out}/explanation'],
  )
  if static:
    yield from _run('quickstart:static', data, f'{out}/static')


def _run(
  config: str, data: str, workdir: str
) -> Iterator[tuple[cli.Command, Sequence[str]]]:
  yield (
    train.COMMAND,
    [
      f'--config={config}',
      f'--config.data.dir={data}',
      f'--workdir={workdir}',
    ],
  )
  yield eval_command.COMMAND, [f'--workdir={workdir}', '--controls']


COMMAND = cli.Command(main, define_flags, resumes=True)

if __name__ == '__main__':
  cli.run(COMMAND)
