"""`sanawm demo`: two flights, a film that players show, a sheet, and a report."""

import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from sanawm_env import cli, demo
from sanawm_env.actions import check_action
from sanawm_env.demo import PATH, Demo, script
from sanawm_env.film import enlarge, write_film
from world_model.errors import InputError
from world_model.pictures import contact_sheet, side_by_side

av = pytest.importorskip("av")


@pytest.fixture
def no_argv(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "argv", ["untouched"])  # cli.main sets it
    return monkeypatch


@pytest.mark.usefixtures("no_argv")
def test_the_command_writes_a_film_and_a_sheet(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "demo" in cli.commands()
    assert cli.main(["demo", "--model", str(model_folder), "--out", str(tmp_path), "--seconds", "1"]) == 0
    printed = capsys.readouterr()
    assert "32/32" in printed.err  # the progress bar: two scenes of 16 frames
    assert "32 frames of 64x64 in" in printed.out
    assert "frames/s" in printed.out
    for name in ("demo.mp4", "demo.png"):
        assert str(tmp_path / name) in printed.out
    with av.open(str(tmp_path / "demo.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 16)
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 17
    assert frames[0].shape == (192, 2 * 192 + 12, 3)
    sheet = av.open(str(tmp_path / "demo.png"))
    picture = next(sheet.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (2 * 64 + 4, 8 * 64 + 7 * 4, 3)
    # The first picture of each row is a start scene, and they differ.
    assert np.abs(picture[:64, :64].astype(int) - picture[68:, :64]).mean() > 5


@pytest.mark.usefixtures("no_argv")
def test_bad_options_and_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--model", "no-such-model", "--out", str(tmp_path)]) == 1
    assert "got 'no-such-model'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    for values in ({"seconds": 0.0}, {"seconds": 601.0}, {"seed": -1}):
        with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
            Demo(**values)


def test_the_seed_draws_two_scenes(model_folder: Path) -> None:
    flown = set()
    for seed in range(3):
        flights, _ = demo.fly_all(Demo(model=str(model_folder), seconds=0.25, seed=seed))
        flown.add(tuple(flight.scene for flight in flights))
    assert all(one != two for one, two in flown)
    assert len(flown) > 1


def test_a_bank_of_one_scene_is_flown_twice(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sanawm_env import env

    bank = env.find_bank(None, model_folder)[:1]
    monkeypatch.setattr(env, "find_bank", lambda *given: bank)
    flights, fps = demo.fly_all(Demo(model=str(model_folder), seconds=0.25))
    assert [flight.scene for flight in flights] == ["scene-0", "scene-0"]
    assert [flight.frames.shape for flight in flights] == [(5, 64, 64, 3)] * 2
    assert fps == 16


def test_the_script_flies_every_leg_in_order() -> None:
    actions = script(32)
    assert len(actions) == 32
    legs = [np.float32(leg).tolist() for leg, _ in groupby(tuple(action.tolist()) for action in actions)]
    assert legs == [np.float32(leg).tolist() for _, leg, _ in PATH]
    for action in actions:
        check_action(action)
    assert len(script(1)) == 1
    assert sum(action[4] * share for _, action, share in PATH[:4]) == 0  # back to where it looked at first


def test_pictures_are_put_together_as_told() -> None:
    black, grey = np.zeros((2, 6, 4, 3), np.uint8), np.full((2, 6, 4, 3), 99, np.uint8)
    both = side_by_side([black, grey], gap=2)
    assert both.shape == (2, 6, 10, 3)
    assert [int(both[0, 0, x, 0]) for x in (3, 4, 5, 6)] == [0, 255, 255, 99]
    sheet = contact_sheet([black, grey], gap=1)
    assert sheet.shape == (13, 9, 3)
    assert [int(sheet[y, 0, 0]) for y in (5, 6, 7)] == [0, 255, 99]
    assert enlarge(grey, 3).shape == (2, 18, 12, 3)
    assert (enlarge(grey, 3) == 99).all()


def test_films_of_odd_size_lose_a_line(tmp_path: Path) -> None:
    write_film(tmp_path / "odd" / "film.mp4", np.full((3, 33, 47, 3), 120, np.uint8), 12.5)
    with av.open(str(tmp_path / "odd" / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 46, 3)] * 3
    assert np.abs(frames[1].astype(int) - 120).max() <= 3
