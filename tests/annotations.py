"""Arrays are checked against jaxtyping's annotations, and nothing else is."""

import types
import typing

import beartype
import jaxtyping


def check(function):
  """Returns `function`, which beartype checks where it names arrays.

  Other annotations, such as `float` for what may be traced, tell a reader what
  a function is made for, and need not hold to the letter.

  Args:
    function: a callable that jaxtyping's import hook found.
  """
  arrays = {
    name: annotation
    for name, annotation in getattr(function, '__annotations__', {}).items()
    if _is_array(annotation)
  }
  if not arrays or not isinstance(function, types.FunctionType):
    return function
  function.__annotations__ = arrays
  return beartype.beartype(function)


def _is_array(annotation) -> bool:
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    return any(map(_is_array, typing.get_args(annotation)))
  return isinstance(annotation, type) and issubclass(
    annotation, jaxtyping.AbstractArray
  )
