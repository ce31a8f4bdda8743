"""What listening costs is measured on models whose leaders are what the page says they are."""

from pathlib import Path

import listening
import pytest

from windowkv_service.model.loader import ModelOptions, load
from windowkv_service.selection import load_profile


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return listening.save_deep_model(tmp_path_factory.mktemp("deep"))


def test_the_deep_model_has_four_leaders_until_one_leads_all(deep: Path) -> None:
    layout = load(ModelOptions(str(deep), "cpu", "auto", 16, None)).layout
    assert load_profile(deep, layout).layers == (3, 11, 19, 27)
    listening.let_one_lead(deep)
    assert load_profile(deep, layout).layers == (listening.LEADER,)


def test_the_share_is_what_the_answer_would_be_spared() -> None:
    page = listening.render({"a model": {"question": 3.0, "published": 2.0}})
    assert page.splitlines()[-1] == "| a model | 1.50 | 33% |"
