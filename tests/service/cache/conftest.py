"""Books without an engine."""

import pytest
from store_books import Books


@pytest.fixture
def books() -> Books:
    return Books()
