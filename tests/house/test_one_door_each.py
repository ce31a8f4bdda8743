"""Things that have one place: the environment, code made from text, bytes taken on trust, what a module remembers."""

from __future__ import annotations

import ast
from collections.abc import Callable

from house_plan import modules, relative, tree

READS_THE_ENVIRONMENT = [
    "client/windowkv_client/_environment.py"
]  # config.py does it through pydantic-settings
NEVER_IMPORTED = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "torch.load"}


def offenders(is_offence: Callable[[ast.AST], bool]) -> list[str]:
    return [relative(path) for path in modules() if any(is_offence(node) for node in ast.walk(tree(path)))]


def test_the_environment_is_read_in_one_place() -> None:
    def touches_environment(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module == "os" and any("env" in alias.name for alias in node.names)
        return isinstance(node, ast.Attribute) and ast.unparse(node).startswith(
            ("os.environ", "os.getenv", "os.putenv")
        )

    assert offenders(touches_environment) == READS_THE_ENVIRONMENT


def test_nothing_is_unpickled() -> None:
    def is_import(node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return not NEVER_IMPORTED.isdisjoint(alias.name for alias in node.names)
        return isinstance(node, ast.ImportFrom) and node.module in NEVER_IMPORTED

    assert offenders(is_import) == []


def test_nothing_is_evaluated() -> None:
    def is_call(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func) in NEVER_CALLED

    assert offenders(is_call) == []


def test_a_module_remembers_nothing() -> None:
    """A name in small letters at a module's top that holds a list, a dict or a set would be a memory."""

    def is_memory(node: ast.AST) -> bool:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(
            node.value, ast.List | ast.Dict | ast.Set
        ):
            return False
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        return any(name.strip("_").islower() and not name.startswith("__") for name in names)

    tops = [(path, node) for path in modules() for node in tree(path).body]
    assert [f"{relative(path)}: {ast.unparse(node)}" for path, node in tops if is_memory(node)] == []
