"""Whoever reads `help(name)` must know what goes in, what comes out, in which shape, and what can go wrong."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import subnet_search

PACKAGES = ["subnet_search"] + [
    module.name for module in pkgutil.iter_modules(subnet_search.__path__, "subnet_search.") if module.ispkg
]


def exported() -> Iterator[tuple[str, Any]]:
    """Every function and class that a package exports, once, under its shortest name."""
    seen: set[int] = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            found = getattr(module, name)
            if id(found) not in seen and getattr(found, "__module__", "").startswith("subnet_search"):
                seen.add(id(found))
                yield f"{package}.{name}", found


RESULT_FIRST = re.compile(r"(Returns|Tells|Computes|Builds|Reads)\b")
"""A first line that begins so is about the result."""

PUBLIC = dict(exported())
FUNCTIONS = {name: found for name, found in PUBLIC.items() if inspect.isfunction(found)}
CLASSES = {name: found for name, found in PUBLIC.items() if inspect.isclass(found)}
METHODS = {
    f"{name}.{method}": function
    for name, owner in CLASSES.items()
    for method, function in vars(owner).items()
    if not method.startswith("_") and inspect.isfunction(function)
}


def section(doc: str, title: str) -> str:
    """The lines of one section of a docstring, empty where it has none."""
    found = re.search(rf"^{title}:\n((?:(?: .*)?\n?)*)", doc, re.MULTILINE)
    return found[1] if found else ""


def doc_of(found: Any) -> str:
    doc = inspect.getdoc(found)
    assert doc, "has no docstring"
    return doc


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def returns_something(function: Callable[..., Any]) -> bool:
    return inspect.signature(function).return_annotation not in (
        None,
        "None",
        "Iterator[None]",
        inspect.Signature.empty,
    )


def raises_own_errors(function: Callable[..., Any]) -> bool:
    """Whether the function itself, and not only what it calls, raises the error that users see."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    caught: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(catches_ours(handler) for handler in node.handlers):
            caught |= {inner for statement in node.body for inner in ast.walk(statement)}
    return any(isinstance(node, ast.Raise) and node not in caught and is_ours(node.exc) for node in ast.walk(tree))


def is_ours(raised: ast.expr | None) -> bool:
    called = raised.func if isinstance(raised, ast.Call) else None
    return isinstance(called, ast.Name) and called.id == "SubnetSearchError"


def catches_ours(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "SubnetSearchError")


def test_there_is_something_to_check() -> None:
    assert len(FUNCTIONS) > 50
    assert len(CLASSES) > 40
    assert (
        section("Why.\n\nArgs:\n    a: One.\n    b: Two.\n\nReturns:\n    Three.\n", "Args")
        == "    a: One.\n    b: Two.\n\n"
    )


@pytest.mark.parametrize("name", [*PUBLIC])
def test_every_public_name_says_why_it_is_there(name: str) -> None:
    first = doc_of(PUBLIC[name]).splitlines()[0]
    assert first.endswith((".", ":")), f"the first line is no sentence: {first!r}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_argument_and_result_is_described(name: str) -> None:
    function = FUNCTIONS.get(name) or METHODS[name]
    doc = doc_of(function)
    described = section(doc, "Args")
    inherited = re.search(r"see `\w+(\.\w+)*`", doc) is not None  # another docstring has it
    wanted = parameters(function)
    if inherited or (len(wanted) <= 1 and len(doc.splitlines()) == 1):  # one line says it all
        return
    missing = [name for name in wanted if not re.search(rf"^    \*{{0,2}}{name}: ", described, re.MULTILINE)]
    assert not missing, f"arguments that are not described: {missing}"
    if returns_something(function):
        told = section(doc, "Returns") or section(doc, "Yields") or RESULT_FIRST.match(doc)
        assert told, "does not say what it returns"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_tensors_have_a_shape(name: str) -> None:
    function = FUNCTIONS.get(name) or METHODS[name]
    annotations = {str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()}
    annotations.add(str(inspect.signature(function).return_annotation))
    if any(re.fullmatch(r"(torch\.)?Tensor( \| None)?", annotation) for annotation in annotations):
        assert re.search(r"`\[.*?\]`|`\(.*?\)`|see `", doc_of(function)), "says of no tensor which shape it has"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_errors_that_a_function_raises_are_described(name: str) -> None:
    function = FUNCTIONS.get(name) or METHODS[name]
    if raises_own_errors(function):
        assert re.search(r"^Raises:$|see `\w+(\.\w+)*`", doc_of(function), re.MULTILINE), "does not say when it raises"


@pytest.mark.parametrize("name", [*CLASSES])
def test_every_attribute_and_argument_of_a_class_is_described(name: str) -> None:
    owner = CLASSES[name]
    doc = doc_of(owner)
    if dataclasses.is_dataclass(owner):
        own = [field.name for field in dataclasses.fields(owner) if field.name in inspect.get_annotations(owner)]
        described = section(doc, "Attributes")
    else:
        own = parameters(vars(owner)["__init__"]) if "__init__" in vars(owner) else []
        described = section(doc, "Args")
    missing = [field for field in own if not field.startswith("_") and f"    {field}: " not in described]
    assert not missing, f"not described: {missing}"
    written = "__post_init__" if dataclasses.is_dataclass(owner) else "__init__"  # the other one is generated
    if written in vars(owner) and raises_own_errors(vars(owner)[written]):
        assert "Raises:" in doc, "does not say which values it refuses"
