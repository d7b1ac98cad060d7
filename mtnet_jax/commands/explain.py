"""Explains a video: mtnet explain --workdir=DIR --video=FILE --out=DIR.

Where and when the network of a run saw a class, layer by layer and by several
methods, and whether to believe each picture. Writes report.html, which holds
everything and opens in any browser, and the pictures beside it.
"""

from collections.abc import Sequence

from absl import flags

from mtnet_jax import cli
from mtnet_jax.errors import printable
from mtnet_jax.runs import given


def define_flags(values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  cli.define_run(values)
  given.define_flags(values)
  flags.DEFINE_string(
    'video', None, 'A file.', required=True, flag_values=values
  )
  flags.DEFINE_string(
    'out', None, 'Folder to write to.', required=True, flag_values=values
  )
  flags.DEFINE_float(
    'at',
    None,
    "Seconds that the clip is about; unset: the video's middle.",
    flag_values=values,
  )
  flags.DEFINE_string(
    'label', None, 'Class; unset: the predicted one.', flag_values=values
  )
  flags.DEFINE_list(
    'method', 'all', 'Some of docs/explain.md, or all.', flag_values=values
  )
  flags.DEFINE_string(
    'layers',
    '3',
    "The pyramid's: steps back, or the name of the lowest layer.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    'mode',
    'layer',
    ['layer', 'feature'],
    "The pyramid's; feature: each apart.",
    flag_values=values,
  )
  flags.DEFINE_float(
    'threshold',
    None,
    "The pyramid's, from 0.5 to 0.731; unset: the network's.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    'faithfulness_steps',
    5,
    'Points of the curves; 0: measure nothing.',
    0,
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Explains the video that the flags name."""
  # Not above: a mistake in the flags is told before jax is loaded.
  from mtnet_jax.devices import device_memory
  from mtnet_jax.explain import files
  from mtnet_jax.explain.explainer import Settings, explain
  from mtnet_jax.prediction import Predictor
  from mtnet_jax.runs.folder import make_folder

  layers = values.layers
  settings = Settings(
    label=values.label,
    methods=values.method,
    layers=int(layers) if layers.isdecimal() else layers,
    mode=values.mode,
    threshold=values.threshold,
    at=values.at,
    faithfulness_steps=values.faithfulness_steps,
  )
  # Better to hear now than after the work that there is no place for it.
  out = make_folder(values.out)
  predictor = Predictor(
    values.workdir, values.checkpoint, given=given.read(values)
  )
  with device_memory.explained(
    'one --method at a time, or a lower --faithfulness_steps'
  ):
    explanation = explain(predictor, values.video, settings)
  print(printable(str(files.write(explanation, out))))


COMMAND = cli.Command(main, define_flags)
