"""Exports a run: mtnet export --workdir=DIR --out=DIR.

Writes the network as a program that needs jax alone (model.stablehlo), its
weights (params.safetensors) and a description of both (model.json); with --onnx
also model.onnx. Before the files are put in place, their outputs are compared
with those of the network on the CPU, the program's in a process that does not
have this library. With --format=hub the command instead writes a model for
Hugging Face's hub: config.json, model.safetensors, preprocessor_config.json and
README.md.
"""

import pathlib
from collections.abc import Sequence

import jax
from absl import flags

from mtnet_jax import cli, locations
from mtnet_jax.errors import UserError, printable
from mtnet_jax.export import check as check_lib
from mtnet_jax.export import hub, model_card
from mtnet_jax.export import onnx as onnx_lib
from mtnet_jax.export import program as program_lib
from mtnet_jax.export.check import Check
from mtnet_jax.prediction import Predictor
from mtnet_jax.runs import given as given_lib
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.runs.given import Given


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_run(values)
  given_lib.define_flags(values)
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the exported model to.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'format',
    'program',
    ('program', 'hub'),
    'Format to write: program needs jax alone, hub is the files of a model on '
    "Hugging Face's hub.",
    flag_values=values,
  )
  flags.DEFINE_string(
    'license',
    None,
    "License of the weights, which model.json or the hub's card states; an "
    'SPDX id such as apache-2.0 for the hub. Without it the license is '
    'unknown.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'onnx',
    False,
    'Also write model.onnx, which needs the packages that docs/export.md '
    'lists. For --format=program alone.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Exports the run that the flags name."""
  if values.format == 'hub':
    if values.onnx:
      raise UserError(
        '--onnx needs --format=program: leave out one of the flags.'
      )
    export_for_hub(
      values.workdir,
      values.out,
      values.checkpoint,
      license=values.license or 'unknown',
      given=given_lib.read(values),
    )
    _show_sizes(values.out, hub.FILES)
    return
  checks = export_run(
    values.workdir,
    values.out,
    values.checkpoint,
    license=values.license,
    onnx=values.onnx,
    given=given_lib.read(values),
  )
  show(checks, values.out)


def export_run(
  workdir: str | pathlib.Path,
  out: str | pathlib.Path,
  checkpoint: str = 'best',
  license: str | None = None,
  onnx: bool = False,
  given: Given | None = None,
) -> list[Check]:
  """Exports a checkpoint of a run and checks the files.

  Args:
    workdir: folder of the run.
    out: folder to write to, made if need be.
    checkpoint: 'best' (on validation) or 'last'.
    license: license of the weights; None: unknown.
    onnx: whether `model.onnx` is written too.
    given: the command line's changes to the run's configuration.

  Returns:
    The checks, of the program and perhaps of the ONNX file.

  Raises:
    UserError: there is nothing to export, it cannot be written, JAX has no CPU
      to check it on, or what was written is not the same network. An earlier
      export in the folder stays as it was.
  """
  cpu = _cpu()
  if onnx:
    onnx_lib.find_packages()
  predictor = _load(workdir, checkpoint, given)
  model, config = predictor.model, predictor.config
  variables = jax.device_put(jax.device_get(predictor.variables), cpu)
  out = make_folder(out)
  program_lib.check_place(out)
  shape, converted = model_lib.evaluation_clip_shape(config), None
  if onnx:
    converted = onnx_lib.convert(model, variables, shape)
  checks = []

  def check(folder: pathlib.Path) -> None:
    program = folder / program_lib.PROGRAM
    with jax.default_device(cpu):
      checks.append(check_lib.check_program(program, model, variables, shape))
      if onnx:
        checks.append(check_lib.check_onnx(converted, model, variables, shape))
    check_lib.judge(checks)

  program_lib.write_export(
    out,
    model,
    variables,
    config,
    predictor.class_names,
    predictor.step,
    license=license,
    onnx=converted,
    check=check,
  )
  return checks


def show(checks: list[Check], out: str | pathlib.Path) -> None:
  """Prints the sizes of the files, and the checks."""
  _show_sizes(out, program_lib.FILES)
  for check in checks:
    print(
      f'{check.name}: {check.milliseconds:.1f} ms a clip, the network itself '
      f'{check.original:.1f} ms; logits differ by {check.difference:.1e} of '
      f'their scale, {check.allowed:.0e} is allowed'
    )


def export_for_hub(
  workdir: str | pathlib.Path,
  out: str | pathlib.Path,
  checkpoint: str = 'best',
  license: str = 'unknown',
  given: Given | None = None,
) -> None:
  """Exports a checkpoint of a run as a model of Hugging Face's hub.

  Args:
    workdir: folder of the run.
    out: folder to write to, made if need be.
    checkpoint: 'best' (on validation) or 'last'.
    license: SPDX identifier of the license of the weights.
    given: the command line's changes to the run's configuration.

  Raises:
    UserError: there is nothing to export, or it cannot be written. An earlier
      export in the folder stays as it was.
  """
  model_card.check_license(license)
  predictor = _load(workdir, checkpoint, given)
  config, names = predictor.config, predictor.class_names
  card = model_card.write(
    config,
    names,
    hub.data_name(config),
    predictor.step,
    license,
    model_card.read_summary(locations.as_path(workdir)),
  )
  hub.write(
    out,
    predictor.model,
    predictor.variables,
    config,
    names,
    predictor.step,
    card,
  )


def _load(
  workdir: str | pathlib.Path, checkpoint: str, given: Given | None
) -> Predictor:
  predictor = Predictor(workdir, checkpoint, given=given)
  if predictor.model is None:
    raise UserError(
      f'{workdir} holds an exported model and no checkpoint. Give the '
      '--workdir of the run that it was exported from.'
    )
  return predictor


def _show_sizes(out: str | pathlib.Path, names: Sequence[str]) -> None:
  for path in sorted(pathlib.Path(out).iterdir()):
    if path.name in names:
      size = path.stat().st_size / 1e6
      print(printable(f'{path}  {size:.2f} MB'))


def _cpu() -> jax.Device:
  try:
    return jax.devices('cpu')[0]
  except RuntimeError as error:
    platforms = jax.config.jax_platforms
    raise UserError(
      'An export is checked on the CPU, which JAX_PLATFORMS='
      f'{platforms} leaves out: set JAX_PLATFORMS={platforms},cpu.'
    ) from error


COMMAND = cli.Command(main, define_flags)
