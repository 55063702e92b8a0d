"""Hypothesis strategies for every value of the model, derived from its type hints.

Bounds of numbers come from the message field of the same name, so that the extremes of
what the wire can carry are tried. Text has no lone surrogates: neither the wire nor the
store could hold them, and whatever reads text for us refuses them.
"""

import dataclasses
import enum
import functools
import types
import typing

from hypothesis import strategies as st

from homeport import model, spec
from homeport.spec import Pairs, pairs
from homeport.v1 import types_pb2

KINDS = tuple(
    kind
    for module in (spec, model)
    for kind in vars(module).values()
    if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
)
"""Every dataclass of `homeport.spec` and `homeport.model`."""

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@functools.cache
def values(kind: type) -> st.SearchStrategy[typing.Any]:
    """Values of one dataclass, with every field drawn."""
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind,
        **{
            field.name: _field(kind, field.name, hints[field.name])
            for field in dataclasses.fields(kind)
            if field.init
        },
    )


def _field(kind: type, name: str, hint: typing.Any) -> st.SearchStrategy[typing.Any]:
    if hint == Pairs:
        return st.dictionaries(TEXT, TEXT, max_size=3).map(pairs)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        item, ellipsis = arguments
        assert ellipsis is ..., f"{kind.__name__}.{name} is a tuple of fixed length"
        return st.lists(_field(kind, name, item), max_size=2).map(tuple)
    if origin in (typing.Union, types.UnionType):
        (item,) = (argument for argument in arguments if argument is not type(None))
        return st.none() | _field(kind, name, item)
    if isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    if dataclasses.is_dataclass(hint):
        return st.deferred(lambda: values(hint))
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return {
        bool: st.booleans,
        bytes: lambda: st.binary(max_size=12),
        float: lambda: st.floats(allow_nan=False, width=_float_width(kind, name)),
        int: lambda: st.integers(*_bounds(kind, name)),
        str: lambda: TEXT,
    }[hint]()


def _descriptor(kind: type, name: str) -> typing.Any:
    return getattr(types_pb2, kind.__name__).DESCRIPTOR.fields_by_name[name]


def _bounds(kind: type, name: str) -> tuple[int, int]:
    field = _descriptor(kind, name)
    return {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: (0, 2**32 - 1),
        field.CPPTYPE_UINT64: (0, 2**64 - 1),
    }[field.cpp_type]


def _float_width(kind: type, name: str) -> int:
    field = _descriptor(kind, name)
    return 32 if field.cpp_type == field.CPPTYPE_FLOAT else 64
