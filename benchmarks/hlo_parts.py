"""Which parts of a network do a compiled program's instructions belong to?

  python -m benchmarks.hlo_parts FILE

FILE is a program's text, perhaps compressed (`.gz`); prints cycles by part, or
bytes where the compiler estimates no cycles, and the costliest instructions.

Flax writes the modules around an operation into its name, JAX the functions and
the pass. A fusion belongs where its convolution or product of matrices does, or
else its own name.
"""

import collections
import gzip
import pathlib
import re
import sys
from collections.abc import Callable, Iterator

from benchmarks import hlo_collectives
from mtnet_jax.devices import hlo
from mtnet_jax.devices.hlo import Instruction, Program, Step

_FORWARD, _DX, _DW = (
  f'channel-separated convolution, {which}' for which in ('forward', 'dx', 'dw')
)
_DENSE = 'dense convolutions and products of matrices'
_NORM = 'BN and activations'
_POOLING = 'pooling, selection, interpolation'
_RECURRENCE = 'recurrence and excitation'
_LOOPS = 'stacked arrays of loops over blocks'
_COPIES = 'copies and layout changes'
_OPTIMIZER = 'optimizer'
_OTHER = 'other'
PARTS = (
  *(_FORWARD, _DX, _DW, _DENSE, _NORM, _POOLING, _RECURRENCE, _LOOPS),
  *(_COPIES, _OPTIMIZER, _OTHER),
)

_RECURRENT = frozenset(('recursion', 'squeeze_excitation', 'srtg'))
_CONVOLUTIONS = frozenset(
  ('classifier', 'conv', 'head', 'linear', 'local', 'pointwise', 'prolonged')
  + ('shortcut', 'spatial', 'stem_spatial', 'temporal')
)
# What these do beside their submodules is MTConv's: it pools, selects frames
# and interpolates.
_MTCONVS = frozenset(('expand', 'project', 'separated'))
# They pool themselves, and where equal blocks are a loop, keep its arrays.
_NETWORKS = frozenset(('MTNet', 'ResNet3D'))
_BLOCKS = frozenset(('MTBlock', 'ResidualBlock'))
_NO_MODULES = frozenset(
  ('body', 'checkpoint', 'cond', 'eval_jaxpr', 'rematted_computation', 'while')
)

_MOVES = frozenset(
  ('bitcast-convert', 'concatenate', 'copy', 'copy-done', 'copy-start')
  + ('dynamic-slice', 'dynamic-update-slice', 'pad', 'reshape', 'reverse')
  + ('slice', 'slice-done', 'slice-start', 'transpose')
)
_LAYOUTS = frozenset(('bitcast-convert', 'copy', 'reshape', 'transpose'))
_PRODUCTS = frozenset(('convolution', 'dot'))
_LIBRARIES = {'cublas': 'cuBLAS', 'cudnn': 'cuDNN'}


def by_part(
  program: Program, ran: list[Step], cost: Callable[[Step], float]
) -> dict[str, float]:
  """Returns the sum of all steps' costs by part, in the order of `PARTS`.

  Args:
    program: the program that the steps belong to.
    ran: steps from `hlo.steps`.
    cost: a function that returns the cost of a step, over all of its runs.
  """
  sums = dict.fromkeys(PARTS, 0)
  for step in ran:
    if value := cost(step):
      sums[part(program, step)] += value
  return sums


def costliest(
  program: Program,
  ran: list[Step],
  cost: Callable[[Step], float],
  count: int = 20,
) -> list[dict[str, str | float]]:
  """Returns what costs the most: cost, part, name, traced operation, shape.

  Args:
    program: the program that the steps belong to.
    ran: steps from `hlo.steps`.
    cost: a function that returns the cost of a step, over all of its runs.
    count: the largest number of instructions to return.
  """
  first = sorted(ran, key=cost, reverse=True)[:count]
  return [
    {
      'cost': cost(step),
      'part': part(program, step),
      'name': step.instruction.name,
      'operation': _hero(program, step)[1].op_name,
      'shape': re.sub(r'\{[^}]*\}|/\*.*?\*/', '', step.instruction.shape),
    }
    for step in first
    if cost(step)
  ]


def cycles(step: Step) -> int:
  """Returns the cycles of a step, as often as it runs."""
  return step.times * step.instruction.cycles


def bytes_moved(program: Program) -> Callable[[Step], int]:
  """Returns a function that gives the bytes of a step's operands and results.

  Every operand counts whole, though a fusion may read a slice of it. What the
  libraries of a GPU take as workspace does not count.
  """

  def moved(step):
    if launch(program, step.instruction) is None:
      return 0
    instruction = step.instruction
    computation = program.computations[step.computation]
    shapes = [computation[name].shape for name in instruction.operands]
    result = instruction.shape
    if instruction.opcode == 'custom-call' and result.startswith('('):
      result = re.sub(r'\b[su]8\[\d*\]', '', result)
    elif instruction.opcode.endswith('-start') and not hlo_collectives.kind(
      instruction.opcode
    ):
      shapes = []  # Its result holds them too.
    return step.times * sum(map(hlo.num_bytes, [*shapes, result]))

  return moved


def launch(program: Program, instruction: Instruction) -> str | None:
  """Returns the kind of kernel that a GPU starts for an instruction, or None.

  Args:
    program: the program that the instruction belongs to.
    instruction: one that runs by itself.
  """
  opcode = instruction.opcode.removesuffix('-start')
  if opcode in hlo.FREE | hlo.CONTROL or opcode.endswith('-done'):
    return None
  if hlo_collectives.kind(opcode):
    return 'collectives'
  if opcode == 'custom-call':
    target = _target(instruction)
    found = (name for key, name in _LIBRARIES.items() if key in target)
    return next(found, 'other custom calls')
  if opcode != 'fusion':
    return 'copies' if opcode in _MOVES else 'other'
  if 'kind=kCustom' in instruction.attributes:
    has_triton = '__triton' in instruction.attributes
    return 'Triton' if has_triton else 'custom fusions'
  opcodes = {i.opcode for _, i in _contents(program, instruction)}
  if 'reduce' in opcodes:
    return 'reduction fusions'
  return 'copies' if opcodes <= _MOVES else 'loop fusions'


def part(program: Program, step: Step) -> str:
  """Returns which of `PARTS` a step belongs to.

  Args:
    program: the program that the step belongs to.
    step: an instruction where it runs.
  """
  computation, hero = _hero(program, step)
  opcodes = {i.opcode for _, i in _contents(program, step.instruction)}
  if _is_layout_change(opcodes):
    return _COPIES
  operation = hero.op_name
  modules = _modules(operation)
  module = modules[-1] if modules else ''
  if not _RECURRENT.isdisjoint(modules):
    return _RECURRENCE
  if module in _NETWORKS:
    return _LOOPS if '.run_stages/' in operation else _POOLING
  if module in _MTCONVS or re.fullmatch(r'conv_\d+', module):
    return _POOLING
  if opcodes <= _MOVES:
    return _COPIES
  if module == 'norm' or module.endswith('_norm') or module in _BLOCKS:
    return _NORM
  if module == 'stem_temporal' or (
    module in ('local', 'prolonged') and 'separated' in modules
  ):
    return _separated_pass(program, computation, hero)
  if module in _CONVOLUTIONS:
    return _DENSE
  if operation.startswith('jit(train_step)/') and 'jvp(' not in operation:
    return _OTHER if _reads_pixels(program, step) else _OPTIMIZER
  return _OTHER


def _is_layout_change(opcodes: set[str]) -> bool:
  """Whether arrays change their order or type, and nothing else."""
  return opcodes <= _LAYOUTS | {'convert'} and bool(opcodes & _LAYOUTS)


def _separated_pass(
  program: Program, computation: str, hero: Instruction
) -> str:
  """Returns a channel-separated convolution's pass: forward, dx or dw."""
  name = hero.op_name
  if 'transpose(' not in name or 'rematted_computation' in name:
    return _FORWARD
  if not _is_product(hero):
    return _DX
  # A kernel's gradient is smaller than the two arrays that it comes from.
  operands = [program.computations[computation][o] for o in hero.operands]
  smallest = min(_size(operand.shape) for operand in operands[:2])
  return _DW if _size(hero.shape) < smallest else _DX


def _size(shape: str) -> int:
  return max((count for count, _ in hlo.arrays(shape)), default=0)


def _reads_pixels(program: Program, step: Step) -> bool:
  computation = program.computations[step.computation]
  return any(
    computation[name].shape.startswith('u8[')
    for name in step.instruction.operands
  )


def _modules(op_name: str) -> list[str]:
  """The Flax modules around a traced operation, outermost first."""
  *around, _ = op_name.split('/')
  names = (
    re.sub(r'^(?:(?:checkpoint|jvp|transpose|vmap)\()+(.*?)\)+$', r'\1', name)
    for name in around
  )
  return [
    name
    for name in names
    if re.fullmatch(r'[A-Za-z]\w*', name) and name not in _NO_MODULES
  ]


def _hero(program: Program, step: Step) -> tuple[str, Instruction]:
  """The instruction that a step is named after, and its computation."""
  contents = list(_contents(program, step.instruction, step.computation))
  for computation, instruction in contents:
    if _is_product(instruction):
      return computation, instruction
  if step.instruction.op_name:
    return step.computation, step.instruction
  named = [found for found in contents if found[1].op_name]
  return named[-1] if named else (step.computation, step.instruction)


def _is_product(instruction: Instruction) -> bool:
  return instruction.opcode in _PRODUCTS or any(
    library in _target(instruction) for library in _LIBRARIES
  )


def _target(instruction: Instruction) -> str:
  found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
  return found[1] if found else ''


def _contents(
  program: Program, instruction: Instruction, computation: str = ''
) -> Iterator[tuple[str, Instruction]]:
  """Yields a fusion's instructions, nested ones too, or the instruction."""
  if instruction.opcode not in ('fusion', 'fusion-start'):
    yield computation, instruction
    return
  for name in instruction.called['calls']:
    for inner in program.computations[name].values():
      if inner.opcode not in hlo.FREE:
        yield from _contents(program, inner, name)


def main(path: str) -> None:
  """Prints a program's costs by part, and its costliest instructions."""
  data = pathlib.Path(path).read_bytes()
  if path.endswith('.gz'):
    data = gzip.decompress(data)
  program = hlo.parse(data.decode())
  ran = hlo.steps(program)
  cost, unit = cycles, 'cycles'
  if not hlo.total_cycles(ran):
    cost, unit = bytes_moved(program), 'bytes'
  total = sum(map(cost, ran))
  print(f'{total:14,} {unit}')
  for name, value in by_part(program, ran, cost).items():
    print(f'{value:14,} {value / max(total, 1):6.1%}  {name}')
  for row in costliest(program, ran, cost, 40):
    print(f'{row["cost"]:14,}  {row["part"]}: {row["name"]} {row["shape"]}')
    print(f'{"":16}{row["operation"]}')
  kinds = collections.Counter(hlo.unknown_loops(program))
  for name, count in kinds.items():
    print(f'Unknown how often: {count} × {name}')


if __name__ == '__main__':
  main(sys.argv[1])
