"""Judges any videos: python predict.py --workdir=DIR VIDEO [VIDEO ...].

A VIDEO is a file, a folder, a pattern, or an array of frames in an .npy file;
the model, the best checkpoint of the run in DIR or an exported one. Prints a
table, or with --json a line for each video. Ends with code 1 where some of the
videos could not be judged, with 2 where none could.
"""

import sys

from absl import flags

from mtnet_jax import cli

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of a run, or of an exported model.', required=True
)
_CHECKPOINT = flags.DEFINE_enum(
  'checkpoint', 'best', ['best', 'last'], 'Best on validation, or the last.'
)
_TOP = flags.DEFINE_integer(
  'top', 5, 'Classes that are told of each video; 0: all.', 0
)
_JSON = flags.DEFINE_bool('json', False, 'Lines of JSON on stdout, no table.')
_TIMELINE = flags.DEFINE_string(
  'timeline', None, 'Folder for what happens when: a CSV and a PNG a video.'
)
_WINDOW = flags.DEFINE_float(
  'window', None, "Seconds judged at a time in it; unset: a clip's."
)
_HOP = flags.DEFINE_float(
  'hop', None, 'Seconds from one window to the next; unset: half a window.'
)


def main(argv: list[str]) -> None:
  from mtnet_jax import memory, predict_command
  from mtnet_jax.prediction import Predictor

  names, times = argv[1:], (_WINDOW.value, _HOP.value)
  predict_command.check_arguments(names, _TIMELINE.value, *times)
  memory.keep()
  predictor = Predictor(_WORKDIR.value, _CHECKPOINT.value)
  timelines = None
  if _TIMELINE.value is not None:
    timelines = predict_command.TimelineWriter(_TIMELINE.value, *times)
  sys.exit(
    predict_command.predict(
      predictor,
      names,
      top=_TOP.value,
      as_json=_JSON.value,
      timelines=timelines,
    )
  )


if __name__ == '__main__':
  cli.run(main, takes_arguments=True)
