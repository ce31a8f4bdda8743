"""From generated documents to tables and to the profile that is kept."""

import json
import sys

import ablation
import calibrate_leaders
import pytest
from cached_documents import untrained_builtin
from observed_prompts import make_layout
from offline.calibration import best_leaders
from offline.candidates import leader_candidates
from offline.chooser import Unmoved
from offline.development import TASKS, draw, share_found
from offline.result import Result, Tally
from offline.trial import Trial

from windowkv_service.model.builtin.documents import Question, tasks
from windowkv_service.selection import Leader, QuestionProfile, load_profile


def result(name: str, scores: dict[str, list[float]], num_leaders: int = 1) -> Result:
    """One document per score, at one kept ratio."""
    led = tuple(Leader(layer, (layer,)) for layer in range(num_leaders))
    made = Result(name, Trial(name, QuestionProfile(led)))
    for task, of_task in scores.items():
        for document, score in enumerate(of_task):
            made.add(0.12, task, document, Tally(score, 0.5, 0.12, 1, 3))
    return made


def test_every_task_of_the_model_is_asked_about():
    assert set(TASKS) == {"single", *tasks()}
    drawn = list(draw(["vt", "cwe"], 2, 2, [300]))
    assert [each.task for each in drawn] == ["vt"] * 2 + ["cwe"] * 4  # of which each has one question
    assert drawn == list(draw(["vt", "cwe"], 2, 2, [300]))
    assert all(each.document.questions for each in drawn)


def test_parts_count_as_whole_words_of_the_first_line():
    question = Question("Which?", "amber oak ivy", ("amber", "oak", "ivy"))
    assert share_found(" amber, oak.\nivy", question) == pytest.approx(2 / 3)
    assert share_found("ambers soak", question) == 0.0


def test_a_score_is_the_mean_of_the_tasks_and_a_gain_is_paired():
    base = result("base", {"vt": [0.0, 1.0], "cwe": [0.4, 0.4, 0.4, 0.4]})
    better = result("better", {"vt": [0.2, 1.0], "cwe": [0.5, 0.5, 0.5, 0.5]})
    assert base.score(0.12) == pytest.approx(0.45)
    assert better.worst(0.12) == ("cwe", 0.5)
    gain, error = better.gain(base)
    assert gain == pytest.approx(0.1)
    assert error == pytest.approx((0.02 / 2) ** 0.5 / 2)  # cwe gains the same on every document


def test_candidates_cover_every_leader_and_fit_the_layout():
    layout = make_layout(6, group_size=2)
    profiles = [profile for _, profile in leader_candidates(layout)]
    assert [p.layers for p in profiles[:6]] == [(0,), (1,), (2,), (3,), (4,), (5,)]
    assert (0, 4) in [profile.layers for profile in profiles]
    for profile in profiles:
        profile.check(layout)


def test_the_fewest_leaders_win_among_those_as_good_as_the_full_cache():
    full = Result("full", Unmoved(is_full=True), result("full", {"vt": [0.95]}).tallies)
    rows = [
        result(name, {"vt": [score]}, count)
        for name, count, score in [("all", 4, 0.952), ("one", 1, 0.945), ("two", 2, 0.949), ("bad", 1, 0.7)]
    ]
    assert best_leaders(rows, full) is rows[1]
    assert best_leaders([rows[3], rows[2]], full) is rows[2]


def test_ablation_writes_a_table_per_experiment(tmp_path, monkeypatch, capsys):
    model = untrained_builtin(tmp_path / "model")
    command = "ablation.py --tasks vt cwe --documents 2 --questions 1 --tokens 200 --kept-ratios 0.3"
    out = ["--model", str(model.directory), "--only", "leaders", "digests", "--out", str(tmp_path / "table")]
    monkeypatch.setattr(sys, "argv", [*command.split(), *out])
    ablation.main()
    page = (tmp_path / "table.md").read_text()
    assert "Which layers lead?" in page and "| one per 16 tokens |" in page and "full cache" in page
    records = json.loads((tmp_path / "table.json").read_text())
    assert set(records) == {"baselines", "leaders", "digests"}
    assert records["leaders"][0]["kept_ratios"]["0.3"]["samples"] == {"vt": 2, "cwe": 2}


def test_calibration_writes_a_profile_that_loads(tmp_path, monkeypatch, capsys):
    model = untrained_builtin(tmp_path)
    command = (
        "calibrate_leaders.py --tasks vt --documents 1 --questions 1 --tokens 150 --kept-ratios 0.5 --write"
    )
    monkeypatch.setattr(sys, "argv", [*command.split(), "--model", str(tmp_path)])
    calibrate_leaders.main()
    assert "| kept |" in capsys.readouterr().out
    assert (tmp_path / "windowkv_profile.json").exists()
    load_profile(tmp_path, model.layout)
