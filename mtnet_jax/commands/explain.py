"""Explains a prediction: mtnet explain --workdir=DIR --video=FILE --out=DIR.

Several methods draw where and when the network of a run found evidence for a
class, layer by layer, and a test says whether each picture is to be believed.
Writes report.html, which holds everything and opens in any browser, and the
pictures beside it. docs/explain.md describes the methods.
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
    'video',
    None,
    'Video to explain: a file or a folder of numbered images.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder to write the report and its pictures to.',
    required=True,
    flag_values=values,
  )
  flags.DEFINE_float(
    'at',
    None,
    'Time in the video, in seconds, that the explained clip is centered on; '
    'without it the middle of the video.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'label',
    None,
    'Name of the class to explain; without it the predicted class.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'method',
    'all',
    'Methods, separated by commas: saliency_tubes, class_feature_pyramids, '
    'class_regularization, amplified_kernels, grad_cam; or all that the '
    'network has.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'layers',
    '3',
    'Depth of the Class Feature Pyramid: a number of layers to step back, or '
    'the name of the lowest layer.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'mode',
    'layer',
    ['layer', 'feature'],
    'Mode of the Class Feature Pyramid: layer averages the kept kernels of a '
    'layer, feature steps back from each of them alone.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'threshold',
    None,
    'Threshold of the Class Feature Pyramid, from 0.5 to below 0.731; a '
    'higher one keeps fewer channels. Without it the default of the network.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'faithfulness_steps',
    5,
    'Number of steps of the deletion and insertion curves that test each '
    'picture; 0 leaves the test out.',
    0,
    flag_values=values,
  )


def main(values: flags.FlagValues, _: Sequence[str]) -> None:
  """Explains the video that the flags name."""
  # The imports are here so that mistakes in flags are reported before jax
  # loads.
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
  # A folder that cannot be written is reported before the work starts.
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
