"""Banks of start scenes: round trip, validation, and rendering of new ones."""

import dataclasses
import json
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sanawm_env.make_starts import StartsConfig, make_starts, shows_goal
from sanawm_env.places import place_of, plan_room
from sanawm_env.starts import Start, find_bank, read_starts, write_starts
from world_model.checkpoint import ASSETS
from world_model.errors import InputError
from world_model.train.data.episode import Episode

PICTURE = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)
STARTS = (
    Start(
        name="hall",
        image=PICTURE,
        prompt="a hall",
        intrinsics=np.array([9.5, 9.25, 6, 8], np.float32),
        goal=np.array([0.1, 0.2, 3.0]),
        meta={"index": 4},
    ),
    Start(name="own", image=255 - PICTURE),
)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    write_starts(tmp_path / "bank", STARTS)
    return tmp_path / "bank"


def test_a_bank_comes_back_as_it_was_written(bank: Path) -> None:
    back = read_starts(bank)
    for start, same in zip(STARTS, back, strict=True):
        assert (same.name, same.prompt, same.meta) == (start.name, start.prompt, start.meta)
        np.testing.assert_array_equal(same.image, start.image)
    np.testing.assert_array_equal(back[0].intrinsics, STARTS[0].intrinsics)
    np.testing.assert_array_equal(back[0].goal, STARTS[0].goal)
    assert back[1].intrinsics is None
    assert back[1].goal is None
    assert back[1].intrinsics_source == "default: 70 degrees horizontal field of view"


def edit(bank: Path, **changes: Any) -> None:
    header = json.loads((bank / "starts.json").read_text())
    (bank / "starts.json").write_text(json.dumps(header | changes))


def edit_scene(bank: Path, **changes: Any) -> None:
    header = json.loads((bank / "starts.json").read_text())
    header["scenes"][0] |= changes
    (bank / "starts.json").write_text(json.dumps(header))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "starts.json").unlink(), "expected starts.json and starts.safetensors, got"),
        (lambda b: (b / "starts.safetensors").unlink(), "expected starts.json and starts.safetensors, got"),
        (lambda b: cut(b / "starts.safetensors"), "expected starts.json and starts.safetensors, got"),
        (lambda b: cut(b / "starts.json"), "expected starts.json and starts.safetensors, got"),
        (lambda b: (b / "starts.json").write_text("[]"), "expected format and version .*got list"),
        (
            lambda b: edit(b, version=2),
            r"expected format and version \('sanawm-starts', 1\), got \('sanawm-starts', 2\)",
        ),
        (lambda b: edit(b, scenes=[]), "expected as many images as scenes, got 0 and 2"),
        (lambda b: save_file({"images": PICTURE[None]}, b / "starts.safetensors"), "got 2 and 1"),
        (lambda b: save_file({"pictures": PICTURE}, b / "starts.safetensors"), "got 2 and None"),
        (lambda b: save_file({"images": np.zeros((2, 9, 9, 3))}, b / "starts.safetensors"), "uint8.*got .*float64"),
        (lambda b: edit_scene(b, name="own"), "expected names that differ"),
        (lambda b: edit_scene(b, colour="red"), "expected scenes with .*got .*colour"),
        (lambda b: edit_scene(b, goal=[1, 2]), r"hall: goal: expected finite \(3,\)"),
        (lambda b: edit_scene(b, goal="there"), "goal: expected numbers, got 'there'"),
        (lambda b: edit_scene(b, intrinsics=[1, -1, 1, 1]), "hall: intrinsics: expected .*positive focal lengths"),
        (lambda b: edit_scene(b, prompt=None), "hall: prompt: expected text, got None"),
    ],
)
def test_damaged_banks(bank: Path, damage: Any, message: str) -> None:
    damage(bank)
    with pytest.raises(InputError, match=message):
        read_starts(bank)


def test_a_bank_has_images_of_one_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images of one size, got sizes \[\]"):
        write_starts(tmp_path, [])
    with pytest.raises(InputError, match=r"got sizes \[\(10, 12, 3\), \(16, 12, 3\)\]"):
        write_starts(tmp_path, [STARTS[0], dataclasses.replace(STARTS[1], image=PICTURE[:10])])


def test_which_bank_is_used(bank: Path, tmp_path: Path) -> None:
    assert [start.name for start in find_bank(bank, None)] == ["hall", "own"]
    bank.rename(tmp_path / "starts")
    assert [start.name for start in find_bank(None, tmp_path)] == ["hall", "own"]
    shipped = (ASSETS / "nano" / "starts" / "starts.json").exists()
    assert bool(find_bank(None, tmp_path / "a model without a bank")) is shipped


@pytest.mark.skipif(not (ASSETS / "nano" / "starts").exists(), reason="no bank of start scenes in this checkout")
def test_the_shipped_bank() -> None:
    starts = read_starts(ASSETS / "nano" / "starts")
    assert len(starts) >= 16
    for start in starts:
        assert start.image.shape == (128, 128, 3)
        assert start.image.std() > 10  # a room, not a wall before the lens
        assert start.prompt.startswith("a room with")
        assert start.meta["split"] == "test"
        assert start.intrinsics is not None
        assert start.goal is not None
        assert 1.5 < np.linalg.norm(start.goal) < 6
        x, y, z = start.goal
        fx, fy, cx, cy = start.intrinsics
        assert 0 < fx * x / z + cx < 128  # the goal is in the picture
        assert 0 < fy * y / z + cy < 128


def test_shipped_scenes_lead_back_to_their_rooms() -> None:
    for start in read_starts(ASSETS / "nano" / "starts")[::4]:
        plan, place = plan_room(start.meta["split"], start.meta["index"], start.meta["seed"])
        told = place_of(start)
        assert told.scene_seed == place.scene_seed == plan.scene.seed
        np.testing.assert_array_equal(told.pose, place.pose)
        assert start.goal is not None
        in_room = told.pose[:3, :3] @ start.goal + told.pose[:3, 3]
        np.testing.assert_allclose(in_room, plan.scene.goal.centre, atol=1e-5)


def test_rooms_of_another_version_are_refused() -> None:
    start = read_starts(ASSETS / "nano" / "starts")[0]
    with pytest.raises(InputError, match="'room-0000': expected a room of version 2, got 1"):
        place_of(dataclasses.replace(start, meta=start.meta | {"world": 1}))
    with pytest.raises(InputError, match=r"'hall': expected one that leads back to its room, got one whose meta lacks"):
        place_of(STARTS[0])


def test_new_scenes_are_test_rooms_that_show_their_goal(tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    starts = list(islice(make_starts(count(), size=32), 2))
    again = list(islice(make_starts(count(int(starts[0].meta["index"])), size=32), 1))
    np.testing.assert_array_equal(again[0].image, starts[0].image)
    assert again[0].name == starts[0].name != starts[1].name
    write_starts(tmp_path, starts)
    assert len(read_starts(tmp_path)) == 2
    for start in starts:
        assert start.meta["split"] == "test"
        assert start.image.shape == (32, 32, 3)
        assert start.goal is not None
        assert start.goal[2] > 0
        place_of(start)


def episode(goal: tuple[float, float, float], depth: float) -> Episode:
    return Episode(
        frames=np.zeros((1, 32, 32, 3), np.uint8),
        c2w=np.eye(4, dtype=np.float32)[None],
        intrinsics=np.array([[16, 16, 16, 16]], np.float32),
        caption="",
        fps=16.0,
        goal=np.array(goal, np.float32),
        depth=np.full((1, 32, 32), depth, np.float16),
    )


@pytest.mark.parametrize(
    ("goal", "depth", "shown"),
    [
        ((0, 0, 3), 2.8, True),
        ((0, 0, 3), 1.5, False),  # something is before it
        ((0, 0, 3), 4.0, False),  # it is not there
        ((0, 0, -3), 2.8, False),  # behind the camera
        ((3.2, 0, 3), 2.8, False),  # outside the picture
        ((0, 0, 1.0), 0.9, False),  # almost reached
        ((0, 0, 7), 6.8, False),  # too far
    ],
)
def test_what_counts_as_showing_the_goal(goal: tuple[float, float, float], depth: float, shown: bool) -> None:
    assert shows_goal(episode(goal, depth)) is shown


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count: expected an integer >= 1, got 0"):
        StartsConfig(out=tmp_path, count=0)
