r"""Converts PyTorch weights of other authors into a run.

  mtnet convert --from=FILE --model=NAME \
    --out=WORKDIR [--labels=FILE]
  mtnet convert --list

Writes `checkpoints/0`, `config.json` and `labels.txt` as training does, so that
`mtnet predict`, `explain`, `export`, `eval` and `train.init_from` take the run;
`config.py`, the same configuration for `mtnet train`; and `conversion.json`,
which lists what each tensor became. docs/weights.md lists published weights.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import optax
from absl import flags, logging
from ml_collections import config_flags

from mtnet_jax import cli, files, locations
from mtnet_jax.convert import conversion, families, published, torch_files
from mtnet_jax.data import class_names
from mtnet_jax.errors import UserError, printable
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs import lock
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.checkpoints import Checkpoints, UnsavedError
from mtnet_jax.runs.folder import make_folder
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training.optim import CLASSIFIER

_BIAS = f'params/{CLASSIFIER}/bias'
_SECTIONS = ('data', 'model', 'eval')
_WANTED_LABELS = 'Give a text file with the name of a class a line.'
_WRITTEN = (
  'checkpoints',
  'config.json',
  'config.py',
  'labels.txt',
  'conversion.json',
)


def convert(
  source: str | pathlib.Path,
  model_name: str,
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  *,
  overrides: Mapping[str, Any] | None = None,
  labels: str | pathlib.Path | None = None,
  new_head: bool = False,
  allow_mismatch: bool = False,
  family: str | None = None,
  bgr: bool = False,
) -> conversion.Conversion:
  """Writes a run that holds the weights of a file.

  Args:
    source: the file, as `torch_files.read` takes it.
    model_name: our name of the network, or of one of `published.rows`.
    config: the run's configuration; what the weights ask for is set in it: the
      network, its clips, and how their pixels are normalized.
    workdir: the run's folder, which must hold nothing yet that is written here.
    overrides: values of keys of the configuration, after that.
    labels: a file with the name of a class a line; None: class_000, ...
    new_head: begin with a random class head, for these labels.
    allow_mismatch: begin with random values where a tensor is missing or has
      another shape, and leave out those that are not needed.
    family: one of `families.FAMILIES`, where the file alone leaves a choice.
    bgr: the weights are of frames with blue first.

  Returns:
    What became of the tensors.

  Raises:
    UserError: the file cannot be read or is of another network, the labels do
      not fit, or the workdir cannot be written. Then nothing is.
    OSError: the disk is full, and again nothing is written.
  """
  _check_unused(workdir)
  network = published.network_of(model_name)
  families.check_model(network)
  if new_head and labels is None:
    raise UserError(
      '--new_head makes a class head for the classes of --labels=FILE, a name '
      'a line: give it too.'
    )
  tensors, prefix = torch_files.read(source)
  origin = families.recognize(tensors, prefix, family)
  layout = _check_origin(source, tensors, origin, network, allow_mismatch)
  config.update_from_flattened_dict(
    families.settings(origin.family, model_name, tensors, bgr, source)
  )
  config.update_from_flattened_dict(dict(overrides or {}))
  run_folder.check_config(config, 'the configuration')
  names = _class_names(tensors, layout, labels, new_head)
  model = model_lib.build_model(config, len(names))
  shapes = conversion.variable_shapes(
    model, model_lib.training_clip_shape(config)
  )
  result = conversion.convert(
    tensors,
    {path: leaf.shape for path, leaf in leaf_paths(shapes).items()},
    layout,
    new_head=new_head,
    bgr=bgr,
  )
  _show(result, origin)
  conversion.check(result, source, allow_mismatch)
  variables = conversion.complete(result, model, config)
  workdir = make_folder(workdir)
  with lock.hold(workdir):
    try:
      with files.writing_folder(workdir) as folder:
        _write(folder, variables, config, names)
        _write_report(folder, result, source, origin, network)
    except UnsavedError as error:
      told = str(error).replace(str(folder), str(workdir))
      raise UnsavedError(told) from error
  return result


def _check_unused(workdir: str | pathlib.Path) -> None:
  if not os.fspath(workdir):
    make_folder(workdir)  # which refuses it
  locations.local_path(workdir)
  for name in _WRITTEN:
    # A link that leads nowhere is there as well.
    if os.path.lexists(os.path.join(workdir, name)):
      raise UserError(
        f'{workdir} (--out) holds a run already, or a part of one: {name} is '
        'there. Give another folder, or remove it.'
      )


def _check_origin(source, tensors, origin, model_name, allow_mismatch):
  """Returns the layout of the file's tensors, if they fit this network."""
  if origin is None:
    raise UserError(
      f'{source} (--from) holds {len(tensors)} tensors, '
      f'{printable(next(iter(tensors)))} for instance, of no known network. '
      '`mtnet convert --list` lists the weights that can be converted.'
    )
  layout = families.layout(origin.family, model_name)
  if layout is None or not (model_name in origin.models or allow_mismatch):
    near = [f'--model={name}' for name in origin.models]
    advice = f'Give {" or ".join(near)}' if near else 'Give another file'
    raise UserError(
      f'{source} (--from) looks like {origin.text}, which is not '
      f'--model={model_name}. {advice}.'
    )
  return layout


def _class_names(tensors, layout, labels, new_head) -> tuple[str, ...]:
  names = () if labels is None else _read_labels(labels)
  (bias,) = layout.sources(_BIAS)
  if new_head:
    return names
  if bias not in tensors:
    raise UserError(
      f'The file has no class head ({bias}). Give --new_head and --labels=FILE.'
    )
  if tensors[bias].ndim != 1 or not tensors[bias].size:
    raise UserError(
      f'{bias} of the file is of shape {tensors[bias].shape}, where the bias '
      'of a class head has one axis, of the classes. Give another file, or '
      '--new_head and --labels=FILE.'
    )
  count = tensors[bias].size
  if labels is None:
    logging.warning(
      'The %d classes have no names: give --labels=FILE, a name a line, in the '
      "order of the weights' own labels.",
      count,
    )
    return tuple(f'class_{k:03}' for k in range(count))
  if len(names) != count:
    raise UserError(
      f'{labels} (--labels) names {len(names)} classes, the weights have '
      f'{count}. Give the names of all of them, or --new_head for a random '
      'class head.'
    )
  return names


def _read_labels(path: str | pathlib.Path) -> tuple[str, ...]:
  try:
    names = class_names.parse(pathlib.Path(path).read_bytes())
  except (OSError, UnicodeDecodeError) as error:
    cause = getattr(error, 'strerror', None) or 'it is not text in UTF-8'
    raise UserError(
      f'{path} (--labels) cannot be read: {cause}. {_WANTED_LABELS}'
    ) from error
  if not names:
    raise UserError(f'{path} (--labels) is empty. {_WANTED_LABELS}')
  class_names.number_labels(names, path)
  return names


def _show(result: conversion.Conversion, origin: families.Origin) -> None:
  count = len({name for names in result.used.values() for name in names})
  print(
    f'{origin.text}: {count} tensors make {len(result.values)} arrays; '
    f'{result.ignored} counters of batches are not needed.'
  )
  missing = [
    f'{path} <- {" + ".join(names) or "no tensor of this family"}'
    for path, names in result.missing.items()
  ]
  for title, lines in (
    ('New', result.new_head),
    ('Misshapen', result.misshapen),
    ('Missing', missing),
    ('Left over', result.unused),
  ):
    if lines:
      print(f'{title}:', *map(printable, lines), sep='\n  ')


def _write(
  workdir: pathlib.Path,
  variables: dict[str, Any],
  config: ml_collections.ConfigDict,
  names: tuple[str, ...],
) -> None:
  text = config.to_json_best_effort(indent=2, sort_keys=True)
  (workdir / 'config.json').write_text(text)
  (workdir / 'labels.txt').write_text('\n'.join(names) + '\n')
  (workdir / 'config.py').write_text(_as_python(config))
  # A run that starts from these weights makes an optimizer of its own.
  optimizer = optax.identity().init(variables['params'])
  state = TrainState(step=jnp.int32(0), opt_state=optimizer, **variables)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state)


def _as_python(config: ml_collections.ConfigDict) -> str:
  """Returns a configuration file that `mtnet train` takes."""
  lines = [
    f'  config.{section}.{key} = {value!r}'
    for section in _SECTIONS
    for key, value in config[section].items()
    if value is not None
  ]
  return '\n'.join(
    [
      '"""What mtnet_jax.convert.torch_weights has set; edit it freely."""',
      '',
      'from mtnet_jax.configs import base',
      '',
      '',
      'def get_config():',
      '  config = base.get_config()',
      *lines,
      '  return config',
      '',
    ]
  )


def _write_report(
  workdir: pathlib.Path,
  result: conversion.Conversion,
  source: str | pathlib.Path,
  origin: families.Origin,
  model_name: str,
) -> None:
  report = {
    'file': str(source),
    'family': origin.family,
    'model': model_name,
    'used': result.used,
    'new_head': result.new_head,
    'missing': result.missing,
    'misshapen': result.misshapen,
    'unused': result.unused,
    'ignored': result.ignored,
  }
  (workdir / 'conversion.json').write_text(json.dumps(report, indent=2))


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  _define_run_flags(values)
  _define_source_flags(values)


def _define_run_flags(values: flags.FlagValues) -> None:
  """Declares the flags for the run that is written."""
  cli.define_config(values, 'base', 'Recipe for what the weights leave open.')
  flags.DEFINE_string(
    'model',
    None,
    'Name of the network, such as x3d_m, or a name in --list.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the run to, which must be new.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'labels',
    None,
    'Text file with the name of a class a line, in the order of the logits; '
    'without it the classes are class_000, class_001 and so on.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'new_head',
    False,
    'Replace the class head by a random one for the classes of --labels.',
    flag_values=values,
  )


def _define_source_flags(values: flags.FlagValues) -> None:
  """Declares the flags for the source of the weights, and for its faults."""
  flags.DEFINE_bool(
    'list',
    False,
    'Only print a table of published weights.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'from',
    None,
    'Weights to convert: a .pth, .pyth or .safetensors file.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'allow_mismatch',
    False,
    'Convert the tensors that fit, and start the others at random.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'family',
    None,
    list(families.FAMILIES),
    'Source of the weights, if the names of tensors fit several.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'bgr',
    False,
    'The weights expect frames in the channel order blue, green, red, as '
    'OpenCV reads them; without it red, green, blue.',
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Converts the weights that the flags name."""
  if values.list:
    print(published.table())
    return
  needed = [
    f'--{name}' for name in ('from', 'model', 'out') if not values[name].value
  ]
  if needed:
    raise UserError(
      f'{" and ".join(needed)} must be given too: mtnet convert --from=FILE '
      '--model=NAME --out=DIR. --list shows what there is.'
    )
  convert(
    config=cli.get_config(values),
    overrides=config_flags.get_override_values(values['config']),
    source=values['from'].value,
    model_name=values.model,
    workdir=values.out,
    labels=values.labels,
    new_head=values.new_head,
    allow_mismatch=values.allow_mismatch,
    family=values.family,
    bgr=values.bgr,
  )
  workdir = printable(values.out)
  print(
    f'Written to {workdir}: mtnet predict --workdir={workdir} VIDEO, or '
    f'mtnet eval --workdir={workdir} --config.data.dir=DIR.'
  )


COMMAND = cli.Command(main, define_flags)

if __name__ == '__main__':
  cli.run(COMMAND)
