"""Reads the collectives of a compiled program: what devices send each other."""

from typing import NamedTuple

from mtnet_jax.devices import hlo
from mtnet_jax.devices.hlo import Computation, Instruction, Program

_KINDS = frozenset(
  ('all-gather', 'all-reduce', 'all-to-all', 'collective-broadcast')
  + ('collective-permute', 'ragged-all-to-all', 'reduce-scatter')
)


class Collective(NamedTuple):
  """An exchange between devices.

  Attributes:
    kind: the kind of collective, such as 'all-reduce'.
    num_bytes: the size of the result on one device.
    times: how often, in one run of the program.
    overlapped: whether the device does other work between start and end.
  """

  kind: str
  num_bytes: int
  times: int
  overlapped: bool


def kind(opcode: str) -> str | None:
  """Returns the kind of a collective, started or complete; None of others."""
  name = opcode.removesuffix('-start')
  return name if name in _KINDS else None


def collectives(program: Program) -> list[Collective]:
  """Returns the exchanges between devices, in order.

  One that is started and ended by two instructions is overlapped where the
  device works between them; one that is a single instruction is not.
  """
  listed, found = program.computations, []
  # What an `async-start` stands for counts where it is started.
  started = {
    name
    for computation in listed.values()
    for instruction in computation.values()
    if instruction.opcode == 'async-start'
    for name in instruction.called.get('calls', ())
  }
  for step in hlo.steps(program):
    instruction = step.instruction
    within = [instruction] * (step.computation not in started)
    if instruction.opcode in ('async-start', 'fusion'):
      names = instruction.called.get('calls', ())
      within = [i for name in names for i in listed[name].values()]
    inner = next((i for i in within if kind(i.opcode)), None)
    if inner:
      end, works = _end(listed[step.computation], instruction)
      shape = end.shape if inner.opcode.endswith('-start') else inner.shape
      size = hlo.num_bytes(shape)
      found.append(Collective(kind(inner.opcode), size, step.times, works))
  return found


def _end(
  computation: Computation, start: Instruction
) -> tuple[Instruction, bool]:
  """What ends an instruction, and whether other work runs until then.

  An instruction that nothing ends is its own end.
  """
  after = list(computation.values())[list(computation).index(start.name) + 1 :]
  parts, works = {start.name}, False
  for instruction in after:
    called = ' '.join(instruction.called.get('calls', ()))
    if parts.isdisjoint(instruction.operands):
      works |= _is_work(instruction)
    elif 'done' in instruction.opcode or 'collective-done' in instruction.name:
      return instruction, works
    elif instruction.opcode in ('async-update', 'get-tuple-element'):
      parts.add(instruction.name)
    elif 'async_collective' in called:  # work that goes on beside it
      parts.add(instruction.name)
      works = True
    else:
      break
  return start, False


def _is_work(instruction: Instruction) -> bool:
  waits = instruction.opcode.endswith(('-start', '-done', '-update'))
  return not waits and instruction.opcode not in hlo.FREE
