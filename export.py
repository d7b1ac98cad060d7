"""Exports a run: python export.py --workdir=DIR --out=DIR.

Writes the network as a program that needs jax alone (model.stablehlo), its
weights (params.safetensors) and what both mean (model.json), with --onnx also
model.onnx. It checks them against the network, on the CPU, the program in a
process without this library; then puts them in place and prints sizes and
times.
"""

from absl import flags

from mtnet_jax import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'Of the run.', required=True)
_CHECKPOINT = flags.DEFINE_enum(
  'checkpoint', 'best', ['best', 'last'], 'Best on validation, or the last.'
)
_OUT = flags.DEFINE_string('out', None, 'Folder to write to.', required=True)
_LICENSE = flags.DEFINE_string(
  'license', None, 'Of the weights, as model.json will tell it.'
)
_ONNX = flags.DEFINE_bool('onnx', False, 'Also model.onnx: docs/export.md.')


def main(_) -> None:
  from mtnet_jax import export_command

  checks = export_command.run(
    _WORKDIR.value,
    _OUT.value,
    _CHECKPOINT.value,
    license=_LICENSE.value,
    onnx=_ONNX.value,
  )
  export_command.show(checks, _OUT.value)


if __name__ == '__main__':
  cli.run(main)
