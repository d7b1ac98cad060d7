"""Reads the text of a compiled program: what runs, how often, what it costs.

XLA prints a scheduled program as computations, lists of instructions in the
order in which they run. The first to run is the entry computation. A fusion is
one instruction; what its own computation lists runs within it.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Instructions that name, group or view arrays, and compute nothing.
FREE = frozenset(
  ('after-all', 'bitcast', 'constant', 'get-tuple-element', 'opt-barrier')
  + ('parameter', 'partition-id', 'replica-id', 'tuple')
)
# Instructions that run other computations and do nothing themselves.
CONTROL = frozenset(('call', 'conditional', 'while'))
_ARRAY = re.compile(r'\b([a-z]+)(\d*)\w*\[([\d,]*)\]')
_NAME = re.compile(r'%([\w.\-]+)')
_LINE = re.compile(r'\s+(ROOT )?%([\w.\-]+) = ')
_HEADER = re.compile(r'(?:ENTRY )?%([\w.\-]+) \(.*\{$')
_CALLED = re.compile(
  r'\b(body|branch_computations|called_computations|calls|condition'
  r'|false_computation|to_apply|true_computation)=(\{[^}]*\}|%[\w.\-]+)'
)
_FLIPPED = {'LT': 'GT', 'GT': 'LT', 'LE': 'GE', 'GE': 'LE'}


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a computation.

  Attributes:
    name: unique in the program.
    is_root: whether it gives the computation's result.
    shape: the shape of the result as printed: `bf16[8,16]{1,0}` for an array,
      for a tuple the shapes of its elements in parentheses.
    opcode: the operation, such as 'fusion'.
    operands: names of instructions in the same computation.
    literal: the text between the parentheses: for a constant its value.
    attributes: all that follows the parentheses.
    op_name: the traced operation that it stems from, with the modules and
      functions around it; '' where XLA names none.
    cycles: the compiler's estimate of the device's cycles; 0 where there is
      none.
    called: computations by the role that they have for this instruction.
  """

  name: str
  is_root: bool
  shape: str
  opcode: str
  operands: tuple[str, ...]
  literal: str
  attributes: str
  op_name: str
  cycles: int
  called: Mapping[str, tuple[str, ...]]


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    computations: the computations by name: the instructions of each by name, in
      order.
    entry: name of the computation that runs first.
  """

  computations: Mapping[str, Computation]
  entry: str


class Step(NamedTuple):
  """An instruction where it runs.

  Attributes:
    instruction: the instruction.
    times: the number of times that it runs in one run of the program.
    computation: name of the computation that lists it.
  """

  instruction: Instruction
  times: int
  computation: str


def parse(text: str) -> Program:
  """Reads a program as `compiled.as_text()` prints it.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations, entry = {}, None
  current = {}
  for line in text.splitlines():
    if header := _HEADER.match(line):
      current = computations[header[1]] = {}
      if line.startswith('ENTRY '):
        entry = header[1]
    elif match := _LINE.match(line):
      root, name = match.groups()
      current[name] = _instruction(name, line[match.end() :], bool(root))
  if entry is None:
    raise ValueError('This is no program of XLA: it has no line "ENTRY …".')
  return Program(computations, entry)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
  """Reads what follows the equals sign."""
  end = _closing(text, 0) if text.startswith('(') else text.index(' ')
  opened = text.index('(', end)
  closed = _closing(text, opened)
  inside, attributes = text[opened + 1 : closed - 1], text[closed:]
  op_name = re.search(r'op_name="([^"]*)"', attributes)
  cycles = re.search(r'"estimated_cycles":"(\d+)"', attributes)
  return Instruction(
    name=name,
    is_root=is_root,
    shape=text[:end],
    opcode=text[end:opened].strip(),
    operands=tuple(_NAME.findall(inside)),
    literal=inside,
    attributes=attributes,
    op_name=op_name[1] if op_name else '',
    cycles=int(cycles[1]) if cycles else 0,
    called={
      role: tuple(_NAME.findall(names))
      for role, names in _CALLED.findall(attributes)
    },
  )


def _closing(text: str, start: int) -> int:
  """Returns where the parenthesis that opens at `start` has been closed."""
  depth = 0
  for match in re.finditer(r'[()]', text[start:]):
    depth += 1 if match[0] == '(' else -1
    if depth == 0:
      return start + match.end()
  raise ValueError(f'A parenthesis stays open in {text[:80]!r}.')


def arrays(shape: str) -> list[tuple[int, int]]:
  """Returns the elements, and the bits of each, of all arrays of a shape.

  Layouts are left out: the padding that they may add is not counted.
  """
  return [
    (
      math.prod(int(size) for size in sizes.split(',') if size),
      8 if kind == 'pred' else int(bits or 0),
    )
    for kind, bits, sizes in _ARRAY.findall(shape)
  ]


def num_bytes(shape: str) -> int:
  """Returns the bytes of a shape's arrays, without padding."""
  return sum(math.ceil(count * bits / 8) for count, bits in arrays(shape))


def steps(program: Program) -> list[Step]:
  """Returns all that runs, in order.

  The body of a loop runs as often as `trips` says, once where that is unknown.
  Of the branches of a condition, the one with the most cycles counts.
  """
  return list(_steps(program, program.entry, 1))


def _steps(program: Program, name: str, times: int) -> Iterator[Step]:
  for instruction in program.computations[name].values():
    yield Step(instruction, times, name)
    called = instruction.called
    if instruction.opcode == 'while':
      count = trips(program, name, instruction)
      again = times * (1 if count is None else count)
      yield from _steps(program, called['body'][0], again)
    elif instruction.opcode == 'conditional':
      branches = [
        list(_steps(program, branch, times))
        for names in called.values()
        for branch in names
      ]
      yield from max(branches, key=total_cycles)
    elif instruction.opcode in ('call', 'async-start'):
      for callee in (callee for names in called.values() for callee in names):
        yield from _steps(program, callee, times)


def total_cycles(ran: list[Step]) -> int:
  """Returns the cycles of steps, one after the other."""
  return sum(step.times * step.instruction.cycles for step in ran)


def unknown_loops(program: Program) -> list[str]:
  """Returns the loops whose number of runs is unknown.

  A loop has the name of the traced operation, or else of its instruction.
  """
  return [
    step.instruction.op_name or step.instruction.name
    for step in steps(program)
    if step.instruction.opcode == 'while'
    and trips(program, step.computation, step.instruction) is None
  ]


def trips(program: Program, name: str, loop: Instruction) -> int | None:
  """Returns how often a loop's body runs; None where the text does not say.

  The compiler may state the number. Otherwise it follows from a condition that
  compares a counter with a constant, from the counter's first value, and from
  what the body adds to it.

  Args:
    program: the program that the loop is part of.
    name: the name of the computation that the loop is listed in.
    loop: a `while` instruction.
  """
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
  if known:
    return int(known[1])
  body, condition = (
    program.computations[loop.called[role][0]] for role in ('body', 'condition')
  )
  first = _elements(program.computations[name], loop.operands[0])
  kept = {i: value for i, value in first.items() if _hands_on(body, i)}
  compare = _root(condition)
  direction = re.search(r'direction=(\w+)', compare.attributes)
  if compare.opcode != 'compare' or not direction:
    return None
  sides, direction = compare.operands, direction[1]
  for (counter, limit), way in (
    (sides, direction),
    (sides[::-1], _FLIPPED.get(direction)),
  ):
    index = _index(condition, counter)
    if index in first and index not in kept:
      limit = _value(condition, limit, kept)
      return _count(first[index], limit, _added(body, index, kept), way)
  return None


def _count(start, limit, added, direction) -> int | None:
  """Counts the values of a counter that a condition lets through."""
  if None in (start, limit, added) or not added:
    return None
  span = limit - start
  if direction in ('LT', 'LE') and added > 0:
    span += direction == 'LE'
  elif direction in ('GT', 'GE') and added < 0:
    span -= direction == 'GE'
  else:
    return None
  return max(0, math.ceil(span / added))


def _root(computation: Computation) -> Instruction:
  return next(i for i in computation.values() if i.is_root)


def _elements(computation: Computation, name: str) -> dict[int, int]:
  """Returns the elements of a tuple that are constants, by index."""
  values = {
    index: _value(computation, operand, {})
    for index, operand in enumerate(computation[name].operands)
  }
  return {index: value for index, value in values.items() if value is not None}


def _value(
  computation: Computation, name: str, first: Mapping[int, int]
) -> int | None:
  """Returns the integer that an instruction gives, where it is known.

  Args:
    computation: the computation that lists the instruction.
    name: the instruction's name.
    first: elements of the computation's parameter by index.
  """
  instruction = computation[name]
  if instruction.opcode == 'constant':
    is_integer = re.fullmatch(r'-?\d+', instruction.literal)
    return int(instruction.literal) if is_integer else None
  if instruction.opcode in ('bitcast', 'convert', 'copy', 'reshape'):
    return _value(computation, instruction.operands[0], first)
  index = _index(computation, name)
  return None if index is None else first.get(index)


def _index(computation: Computation, name: str) -> int | None:
  """Returns which element of the computation's parameter this is."""
  instruction = computation[name]
  while instruction.opcode in ('bitcast', 'convert', 'copy', 'reshape'):
    instruction = computation[instruction.operands[0]]
  if instruction.opcode != 'get-tuple-element':
    return None
  if computation[instruction.operands[0]].opcode != 'parameter':
    return None
  return int(re.search(r'index=(\d+)', instruction.attributes)[1])


def _hands_on(body: Computation, index: int) -> bool:
  """Returns whether a loop's body leaves an element of its parameter alone."""
  result = _root(body)
  return (
    result.opcode == 'tuple' and _index(body, result.operands[index]) == index
  )


def _added(
  body: Computation, index: int, kept: Mapping[int, int]
) -> int | None:
  """Returns what a loop's body adds to an element of its parameter."""
  result = _root(body)
  if result.opcode != 'tuple':
    return None
  addition = body[result.operands[index]]
  if addition.opcode != 'add':
    return None
  for here, other in (addition.operands, addition.operands[::-1]):
    if _index(body, here) == index:
      return _value(body, other, kept)
  return None
