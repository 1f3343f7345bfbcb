"""Hashes of the text of users' own objects, by which a changed object is another one.

An object of a module is known by the module's file. A script or a notebook changes for other
reasons, so an object of `__main__` is known by its own definition and by those that it names.
Definitions count as Python reads them: comments, blank lines and layout do not matter.
"""

import ast
import dis
import hashlib
import inspect
import linecache
import pathlib
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

_SCRIPT = "__main__"
_PLAIN = (int, float, complex, str, bytes, tuple, type(None))


def digest(made: Any) -> str:
    """SHA-256 of the text of a class or a function, 16 digits; "" if its text is nowhere.

    Code that is typed at a prompt, or run by `exec`, has no text.
    """
    made = inspect.unwrap(made)
    if getattr(made, "__module__", None) == _SCRIPT:
        texts = list[str]()
        _collect(made, texts, set())
        return _abbreviated("\n".join(texts).encode()) if texts else ""
    try:
        return _abbreviated(pathlib.Path(inspect.getsourcefile(made) or "").read_bytes())
    except (OSError, TypeError):
        return ""


def _abbreviated(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _collect(made: Any, texts: list[str], seen: set[int]) -> None:
    """Add the definition of an object of the script, then those of all that it names there."""
    if id(made) in seen:
        return
    seen.add(id(made))
    definitions = _definitions(made)
    texts += definitions
    there = vars(sys.modules[_SCRIPT])
    named = {name for text in definitions for name in _globals(compile(text, "", "exec"))}
    for name in sorted(named & there.keys()):
        value = inspect.unwrap(there[name])
        if getattr(value, "__module__", None) == _SCRIPT:
            _collect(value, texts, seen)
        elif isinstance(value, _PLAIN):
            texts.append(f"{name} = {value!r}")
    # A class without a method of its own does not know its cell.
    if isinstance(made, type) and not definitions:
        own = {k: v for k, v in vars(made).items() if isinstance(v, _PLAIN) and k[:2] != "__"}
        texts += [f"{made.__name__} {own}"] if own else []
        for base in made.__bases__:
            if base.__module__ == _SCRIPT:
                _collect(base, texts, seen)


def _definitions(made: Any) -> list[str]:
    """The text of a class or a function, without comments; of a lambda all those of its line."""
    name = getattr(made, "__name__", "")
    for code in _codes(made):
        text = "".join(linecache.getlines(code.co_filename))
        nodes = (node for node in ast.walk(ast.parse(text)) if _is(node, name, code))
        if found := [ast.unparse(node) for node in nodes]:
            return found
    return []


def _is(node: ast.AST, name: str, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        own, begin = "<lambda>", node.lineno
    elif isinstance(node, ast.ClassDef | ast.FunctionDef):
        own, begin = node.name, min(n.lineno for n in (node, *node.decorator_list))
    else:
        return False
    return own == name and begin <= code.co_firstlineno <= (node.end_lineno or begin)


def _codes(made: Any) -> Iterator[CodeType]:
    """Code of a function, or of the methods of a class; they know the cell that they are from."""
    own = vars(made).values() if isinstance(made, type) else (made,)
    for function in map(inspect.unwrap, own):
        if inspect.isfunction(function) and function.__module__ == _SCRIPT:
            yield function.__code__


def _globals(code: CodeType) -> Iterator[str]:
    """Names that code looks up outside itself."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            yield instruction.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)
