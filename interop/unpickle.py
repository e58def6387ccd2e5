"""Unpickle tensors and settings safely, without importing or executing code.

A pickle is a program that names functions and calls them. This reader replaces tensors by
placeholders without data, and objects of settings classes by dictionaries of attributes; any other
name is an error and is never looked up. Only the opcodes that build data are supported, and no
opcode can use more memory or time than a small multiple of its size in bytes.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from data.errors import DataError

MAX_BYTES = 16 << 20  # of a pickle without tensor data: real ones are below 1 MiB
TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_SETTINGS = ("argparse", "fairseq", "omegaconf", "numpy")  # packages of settings classes
_VALUES = {
    *(f"{builtins}.{name}" for builtins in ("builtins", "__builtin__")
      for name in ("bool", "dict", "float", "int", "list", "set", "str")),
    *("_codecs.encode", "collections.defaultdict", "typing.Any", "torch.Size", "torch.device"),
}  # fmt: skip
_SCALARS = (str, bytes, float, bool, type(None))
_AXES = 8  # maximum per tensor
_ARGUMENTS = 16


class InertObject(dict):
    """Placeholder of an object: a dictionary of its attributes or items."""

    def __new__(cls, *arguments, **named):
        return super().__new__(cls)

    def __init__(self, *arguments, **named):
        super().__init__()

    def append(self, item):
        """Ignored."""

    def extend(self, items):
        """Ignored."""


class Storage(NamedTuple):
    """Tensor data stored beside the pickle."""

    kind: str  # a key of TYPES
    key: str
    count: int  # type: ignore[assignment]  # hides tuple.count


class LazyTensor(NamedTuple):
    """A tensor whose data is still in the archive."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: Storage, offset, size, stride, *rest) -> LazyTensor:
    if type(storage) is not Storage or not len(size) == len(stride) <= _AXES:
        raise ValueError("a tensor with an invalid shape")
    if not all(map(_is_count, (offset, *size, *stride))):
        raise ValueError("a tensor with an invalid shape")
    return LazyTensor(storage, offset, tuple(size), tuple(stride))


def _parameter(tensor: LazyTensor, *rest) -> LazyTensor:
    return tensor


def _ordered(*arguments) -> InertObject:
    return InertObject()


_CALLS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered,
}
_CALLED = (InertObject, *_CALLS.values())


class Unpickler(pickle._Unpickler):
    """Reads one pickle, by Python's pure-Python unpickler, which allows removing opcodes.

    The C unpickler allocates as many memo entries as a pickle claims, and hashes keys of nested
    tuples, which can take exponential time.
    """

    # Attributes that typeshed's class lacks.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (
            *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
            *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT),
            *(pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4),
            *(pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING),
            *(pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
            *(pickle.SHORT_BINUNICODE, pickle.BINBYTES, pickle.BINBYTES8, pickle.SHORT_BINBYTES),
            *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
            *(pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
            *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT),
            *(pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL),
            *(pickle.PERSID, pickle.BINPERSID),
        )
    }

    def __init__(self, path: Path, file: BinaryIO):
        super().__init__(file)
        self._path = path
        self._copied = 0  # items copied between tables
        self.storages: dict[str, Storage] = {}  # by key

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name to a supported placeholder; raises DataError for any other."""
        full_name = f"{module[:200]}.{name[:200]}"
        if full_name in _CALLS:
            return _CALLS[full_name]
        if module == "torch" and name in TYPES:
            return name
        if full_name in _VALUES or module.partition(".")[0] in _SETTINGS:
            return InertObject
        shown = full_name.encode("unicode_escape").decode()[:100]
        raise DataError(
            f"{self._path} has more than tensors and settings ({shown}), which could execute "
            "code: it is not opened"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a tensor's data."""
        if type(pid) is not tuple or not 5 <= len(pid) <= 6 or pid[5:] not in ((), (None,)):
            raise ValueError("a tensor without a storage")
        _, kind, key, _, count = pid[:5]
        supported = type(kind) is str and kind in TYPES
        if not supported or type(key) is not str or not _is_count(count):
            raise ValueError("a storage of an unknown type")
        storage = Storage(kind, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage with two types")
        return storage

    def _reduce(self):
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is supported for supported in _CALLED):
            raise ValueError("it calls an unsupported function")
        if type(arguments) is not tuple or len(arguments) > _ARGUMENTS:
            raise ValueError("it calls a function with too many arguments")
        self.stack[-1] = function(*arguments)

    def _new(self):
        arguments = self.stack.pop()
        if self.stack[-1] is not InertObject or type(arguments) is not tuple:
            raise ValueError("it creates an object of an unsupported class")
        self.stack[-1] = InertObject()

    def _build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        for part in state[:2] if isinstance(state, tuple) else (state,):
            if isinstance(part, dict) and type(target) is InertObject:
                self._copied += len(part)
                if self._copied > MAX_BYTES:
                    raise ValueError("it copies too many items")
                target.update(part)

    def _append(self):
        item = self.stack.pop()
        self._list().append(item)

    def _appends(self):
        items = self.pop_mark()
        self._list().extend(items)

    def _list(self) -> list | InertObject:
        if type(self.stack[-1]) not in (list, InertObject):
            raise ValueError("it appends to an object other than a list")
        return self.stack[-1]

    def _item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _items(self):
        self._set(self.pop_mark())

    def _dict(self):
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _set(self, items: list) -> None:
        """Set alternating keys and values; keys must be cheap to hash."""
        table = self.stack[-1]
        if type(table) not in (dict, InertObject) or len(items) % 2:
            raise ValueError("it sets items of an object other than a table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _check_key(key)
            table[key] = value

    def _add(self):
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise ValueError("it adds to an object other than a set")
        for item in items:
            _check_key(item)
            self.stack[-1].add(item)

    dispatch |= {
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.SETITEM[0]: _item,
        pickle.SETITEMS[0]: _items,
        pickle.DICT[0]: _dict,
        pickle.ADDITEMS[0]: _add,
    }


def _check_key(key: Any) -> None:
    """Raise ValueError for keys that are expensive to hash."""
    parts = key if type(key) is tuple else (key,)
    cheap = all(isinstance(part, _SCALARS) or _is_count(part) for part in parts[: _AXES + 1])
    if len(parts) > _AXES or not cheap:
        raise ValueError("a key that is neither a name nor a number")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def unpickle(path: Path, content: bytes) -> tuple[Any, dict[str, Storage]]:
    """Unpickle a pickle of the archive `path`: its content, and the storages of its tensors.

    Raises DataError for unsupported names, and any Exception for corrupt data.
    """
    reader = Unpickler(path, io.BytesIO(content))
    return reader.load(), reader.storages
