"""One public namespace, and it is what it says."""

from __future__ import annotations

import inspect
import types

import pytest

import windowkv_client
from windowkv_client import AsyncClient, Client, WindowKVError, testing

PAIRS = [
    (windowkv_client.Client, windowkv_client.AsyncClient),
    (windowkv_client.Caches, windowkv_client.AsyncCaches),
    (windowkv_client.Models, windowkv_client.AsyncModels),
    (windowkv_client.GenerateStream, windowkv_client.AsyncGenerateStream),
]
COLOURED = {
    "__enter__",
    "__exit__",
    "__aenter__",
    "__aexit__",
    "__iter__",
    "__next__",
    "__aiter__",
    "__anext__",
}


def public(module: types.ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


@pytest.mark.parametrize("module", [windowkv_client, testing])
def test_all_is_every_public_name_in_order(module: types.ModuleType) -> None:
    assert sorted(module.__all__) == module.__all__
    assert set(module.__all__) == public(module)


def test_every_exception_of_the_family_is_exported() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    family = {kind.__name__ for kind in below(WindowKVError) if kind.__module__.startswith("windowkv_client")}
    assert family <= set(windowkv_client.__all__)


@pytest.mark.parametrize(("blocking", "awaiting"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_have_the_same_surface(blocking: type, awaiting: type) -> None:
    def surface(kind: type) -> dict[str, list[inspect.Parameter]]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [each.replace(annotation="") for each in inspect.signature(member).parameters.values()]
            for name, member in members
            if name not in COLOURED and (not name.startswith("_") or name == "__init__")
        }

    assert surface(blocking) == surface(awaiting)


def test_both_clients_show_caches_and_models() -> None:
    with Client("127.0.0.1:1") as client:
        shown = {name for name in vars(client) if not name.startswith("_")}
    assert shown == {"target", "caches", "models"}
    assert AsyncClient.__init__.__doc__ == Client.__init__.__doc__
