"""Reads a compiler's estimates of a program, and computes its lower bounds."""

import collections
import dataclasses
from typing import Any

from benchmarks import communication, hlo_collectives, hlo_parts
from mtnet_jax.devices import hlo, targets
from mtnet_jax.devices.hlo import Program, Step

PROGRAMS = ('train', 'infer')
_COSTLIEST = 20


@dataclasses.dataclass(frozen=True)
class Row:
  """A program and what it is compiled for.

  Attributes:
    network: one of `models.NAMES`, on clips of its usual size.
    program: one of `PROGRAMS`, in bfloat16.
    clips: the number of clips per device.
    rematerialize: whether the train step computes its blocks again.
    target: see `targets.check`.
    xla_flags: the environment's XLA_FLAGS.
  """

  network: str
  program: str
  clips: int
  rematerialize: bool
  target: str
  xla_flags: str = ''


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program and the compiler's report.

  Attributes:
    text: the scheduled program.
    seconds: seconds on this machine: `lower` until XLA has the program,
      `compile` until it is compiled, and `compile_cpu`, the CPU time of all
      threads of this process meanwhile.
    memory: bytes of one device: `needed` for arguments, results and temporary
      arrays together, `peak` at any moment.
  """

  text: str
  seconds: dict[str, float]
  memory: dict[str, int]


def figures(row: Row, compiled: Compiled) -> dict[str, Any]:
  """Returns what the compiler estimates of a row, all of one device.

  Of TPUs: `cycles`, and `estimated_seconds` at the chip's clock; of GPUs:
  `launches` by kind, and `bytes` of all operands and results. Of both: `floor`,
  `parts` and `costliest`, in cycles or in bytes; `seconds` and `memory` of
  `Compiled`, with the device's own memory; `collectives`; `unknown_loops`,
  whose bodies count once.

  Args:
    row: what was compiled.
    compiled: the compiled program.
  """
  program = hlo.parse(compiled.text)
  ran, chip = hlo.steps(program), targets.chip(row.target)
  passes = 1
  if row.program == 'train':
    passes = communication.TRAIN_PASSES + row.rematerialize
  work = communication.measure(row.network, passes)
  if targets.is_gpu(row.target):
    cost = hlo_parts.bytes_moved(program)
    found = {
      'bytes': sum(map(cost, ran)),
      'floor': row.clips * work.traffic,
      'launches': _launches(program, ran),
    }
  else:
    cost = hlo_parts.cycles
    floor = communication.floor_seconds(work, chip, row.clips)
    cycles = hlo.total_cycles(ran)
    found = {
      'cycles': cycles,
      'floor': round(floor * chip.clock),
      'estimated_seconds': cycles / chip.clock,
    }
  return found | {
    'seconds': compiled.seconds,
    'memory': compiled.memory | {'device': chip.memory},
    'collectives': [c._asdict() for c in hlo_collectives.collectives(program)],
    'unknown_loops': hlo.unknown_loops(program),
    'parts': hlo_parts.by_part(program, ran, cost),
    'costliest': hlo_parts.costliest(program, ran, cost, _COSTLIEST),
  }


def _launches(program: Program, ran: list[Step]) -> dict[str, int]:
  """Kernels that a GPU starts, by kind, the most frequent first."""
  counts = collections.Counter()
  for step in ran:
    if kind := hlo_parts.launch(program, step.instruction):
      counts[kind] += step.times
  return dict(counts.most_common())
