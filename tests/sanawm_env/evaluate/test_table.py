"""From outcomes to tables, JSON and the plot; and the record that an evaluation continues from."""

import dataclasses
import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sanawm_env.evaluate.camera import CameraError
from sanawm_env.evaluate.chart import APART, spread
from sanawm_env.evaluate.record import Record, outcomes_of, read_record
from sanawm_env.evaluate.report import to_json, to_markdown, to_svg
from sanawm_env.evaluate.rollouts import Outcome
from sanawm_env.evaluate.table import make_table, verdicts
from world_model.errors import InputError

POLICIES = ("good", "fair", "bad", "oracle")


def play(policy: str, wins: int, count: int = 4) -> list[Outcome]:
    return [
        Outcome(
            policy=policy,
            scene=f"room-{i}",
            seed=i,
            success=i < wins,
            total=2.0 + i if i < wins else -1.0,
            steps=10,
            distance=0.5,
            goal=(0.0, 0.5, 3.0),
        )
        for i in range(count)
    ]


def world(*wins: int) -> list[Outcome]:
    return [outcome for policy, won in zip(POLICIES, wins, strict=True) for outcome in play(policy, won)]


WORLDS = {"twin": world(4, 2, 0, 4), "model": world(3, 2, 1, 4), "repeat": world(1, 1, 1, 4), "warp": world(0, 2, 4, 4)}


def test_the_table_counts_and_compares() -> None:
    table = make_table(WORLDS, POLICIES, ("oracle",))
    assert table.truth == "twin"
    assert table.counted == ("good", "fair", "bad")
    assert table.scores["model"]["good"].success.value == 0.75
    assert table.scores["model"]["good"].total.value == pytest.approx((2 + 3 + 4 - 1) / 4)
    assert table.agreements["model"]["success"].r == pytest.approx(1)
    assert table.agreements["warp"]["success"].rho == pytest.approx(-1)
    assert table.agreements["warp"]["success"].mmrv == pytest.approx((1 + 0.5 + 1) / 3)
    assert math.isnan(table.agreements["repeat"]["success"].r)
    assert all(passed for _, passed in verdicts(table, "model", ("repeat", "warp")))
    assert not all(passed for _, passed in verdicts(table, "warp", ("model",)))


def test_what_does_not_pair_up_is_refused() -> None:
    moved = [dataclasses.replace(o, goal=(0.0, 0.5, 3.2)) for o in WORLDS["model"]]
    with pytest.raises(InputError, match=r"one goal in twin and model, got 0\.200 m"):
        make_table({"twin": WORLDS["twin"], "model": moved}, POLICIES, ())
    other = [dataclasses.replace(o, scene="elsewhere") for o in WORLDS["model"]]
    with pytest.raises(InputError, match="same starts"):
        make_table({"twin": WORLDS["twin"], "model": other}, POLICIES, ())
    with pytest.raises(InputError, match="equally many episodes"):
        make_table({"twin": WORLDS["twin"][:-1]}, POLICIES, ())


def test_reports_hold_the_numbers() -> None:
    table = make_table(WORLDS, POLICIES, ("oracle",))
    floor = CameraError(turn_gain=0.98, turn_error=1.5, move_gain=math.nan, move_error=0.05, direction_error=math.nan)
    camera = {"twin": {"yaw": floor}}
    text = to_markdown(table, "model", ("repeat", "warp"), camera)
    assert "pass: Pearson r of success rates >= 0.9: 1.000" in text
    assert "| oracle (bound) | 1.00" in text
    assert "| twin | yaw | 0.980 | 1.50 | – |" in text
    content = json.loads(to_json(table, camera, {"seeds": [0]}))
    assert content["agreement"]["repeat"]["success"]["r"] is None
    assert content["scores"]["twin"]["fair"]["success"]["value"] == 0.5
    assert content["camera"]["twin"]["yaw"]["turn_gain"] == 0.98
    plot = ET.fromstring(to_svg(table))
    numbers = [node.text for node in plot.iter() if node.get("font-size") == "10"]
    assert numbers == ["1", "2", "3"] * 4  # three panels and the legend; bounds are left out


def test_a_record_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    path, about = tmp_path / "run" / "episodes.jsonl", {"episodes": 4}
    record = Record(path, about)
    for outcome in play("good", 2):
        record.add("twin", outcome)
    with path.open("a") as file:
        file.write('{"world": "twin", "outc')
    again = Record(path, about)
    assert again.outcomes("twin") == play("good", 2) == Record(path, about).outcomes("twin")
    assert again.outcomes("model") == []
    with pytest.raises(InputError, match="choose another folder"):
        Record(path, {"episodes": 5})


def test_a_record_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    record = Record(path, {"episodes": 4})
    for outcome in play("good", 2):
        record.add("twin", outcome)
    with path.open("a") as file:
        file.write('{"world": "twin", "outc')
    about, lines = read_record(path)
    assert about == {"episodes": 4}
    assert outcomes_of(lines, "twin") == play("good", 2)


@pytest.mark.parametrize("text", ["", "not JSON\n", "[1]\n", '{"format": "other"}\n'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="expected the record of an evaluation"):
        read_record(path)


def test_numbers_in_the_plot_do_not_cover_each_other() -> None:
    spots = spread([(52, 294), (52, 294), (56, 290), (312, 34), (312, 34)], left=52)
    assert spots[0] == (52, 294)
    assert spots[3] == (312, 34)
    assert min(math.dist(a, b) for i, a in enumerate(spots) for b in spots[:i]) >= APART - 1
    assert all(52 <= x <= 312 and 34 <= y <= 294 for x, y in spots)
