"""Explains a video: python explain.py --workdir=DIR --video=FILE --out=DIR.

Where and when the network of a run saw a class, layer by layer and by several
methods, and whether to believe each picture. Writes report.html, which holds
everything and opens in any browser, and the pictures beside it.
"""

from absl import flags

from mtnet_jax import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'Of the run.', required=True)
_CHECKPOINT = flags.DEFINE_enum(
  'checkpoint', 'best', ['best', 'last'], 'Best on validation, or the last.'
)
_VIDEO = flags.DEFINE_string('video', None, 'A file.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder to write to.', required=True)
_AT = flags.DEFINE_float(
  'at', None, "Seconds that the clip is about; unset: the video's middle."
)
_LABEL = flags.DEFINE_string('label', None, 'Class; unset: the predicted one.')
_METHOD = flags.DEFINE_list('method', 'all', 'Some of docs/explain.md, or all.')
_LAYERS = flags.DEFINE_string(
  'layers', '3', "The pyramid's: steps back, or the name of the lowest layer."
)
_MODE = flags.DEFINE_enum(
  'mode', 'layer', ['layer', 'feature'], "The pyramid's; feature: each apart."
)
_THRESHOLD = flags.DEFINE_float(
  'threshold', None, "The pyramid's, from 0.5 to 0.731; unset: the network's."
)
_STEPS = flags.DEFINE_integer(
  'faithfulness_steps', 5, 'Points of the curves; 0: measure nothing.', 0
)


def main(_) -> None:
  from mtnet_jax.checkpoints import make_workdir
  from mtnet_jax.explain import files
  from mtnet_jax.explain.explainer import Settings, explain
  from mtnet_jax.prediction import Predictor

  settings = Settings(
    label=_LABEL.value,
    methods=_METHOD.value,
    layers=int(_LAYERS.value) if _LAYERS.value.isdecimal() else _LAYERS.value,
    mode=_MODE.value,
    threshold=_THRESHOLD.value,
    at=_AT.value,
    faithfulness_steps=_STEPS.value,
  )
  # Better to hear now than after the work that there is no place for it.
  out = make_workdir(_OUT.value)
  predictor = Predictor(_WORKDIR.value, _CHECKPOINT.value)
  print(files.write(explain(predictor, _VIDEO.value, settings), out))


if __name__ == '__main__':
  cli.run(main)
