"""The fidelity table: on models whose answers are known, its figures are known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.world_model.box_room import episode, small_nano
from world_model.errors import EpisodeError, InputError
from world_model.fidelity import ALL, SYSTEMS, Row, commanded_rotation, measure, rotation_figures
from world_model.model import WorldModel
from world_model.train.data.episode import Episode

SIZE = 64


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """An untrained nano for small pictures."""
    return WorldModel.random(dataclasses.replace(small_nano(SIZE, depth=2), steps=(1000, 0)))


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    """A second of turning, of standing, and of moving ahead while turning."""
    twists = {"yaw": [0, 0, 0, 0, 30, 0], "still": [0] * 6, "drive": [0, 0, 0.6, 0, -20, 0]}
    return [episode(kind, twist, frames=17, size=SIZE) for kind, twist in twists.items()]


class Oracle(WorldModel):
    """Answers with given videos instead of generating any."""

    def __init__(self, model: WorldModel, videos: list[np.ndarray]) -> None:
        super().__init__(model.config, model.transformer, model.tokenizer, model.text)
        self.videos = torch.from_numpy(np.stack(videos))

    def reset(self, images, prompts=None, intrinsics=None, seeds=None):
        self.time, self.chosen = 1, list(seeds)
        return None, self.videos[self.chosen, :1]

    def step(self, state, poses, *, noise=None, donate=False):
        self.time += poses.shape[1]
        return None, self.videos[self.chosen, self.time - poses.shape[1] : self.time]


def by_key(rows: tuple[Row, ...]) -> dict[tuple[str, int, str], Row]:
    return {(row.kind, row.second, row.system): row for row in rows}


def test_a_perfect_model_equals_the_truth_in_every_figure(model: WorldModel, episodes: list[Episode]) -> None:
    result = measure(Oracle(model, [e.frames for e in episodes]), episodes, batch=2)
    rows = by_key(result.rows)
    assert set(rows) == {(kind, 1, system) for kind in ("yaw", "still", "drive", ALL) for system in SYSTEMS}
    for kind in ("yaw", "still", "drive", ALL):
        left, right = (dataclasses.asdict(rows[kind, 1, system]) for system in ("model", "truth"))
        assert {k: v for k, v in left.items() if k != "system"} == pytest.approx(
            {k: v for k, v in right.items() if k != "system"}, nan_ok=True
        )
    perfect = rows["yaw", 1, "model"]
    assert (perfect.psnr, perfect.gradient, perfect.episodes) == (60, 1, 1)
    assert perfect.gain == pytest.approx(1, abs=0.1), "these pictures are small"
    assert perfect.commanded == pytest.approx(30, abs=0.01)
    assert rows[ALL, 1, "model"].frechet == pytest.approx(0, abs=1e-6)
    assert rows[ALL, 1, "repeat"].frechet > 1e-4
    assert rows[ALL, 1, "model"].episodes == 3
    assert all(torch.equal(g, torch.from_numpy(e.frames)) for g, e in zip(result.generated, episodes, strict=True))


def test_a_model_that_never_moves_equals_the_repeated_frame(model: WorldModel, episodes: list[Episode]) -> None:
    frozen = [np.repeat(e.frames[:1], len(e.frames), 0) for e in episodes]
    rows = by_key(measure(Oracle(model, frozen), episodes).rows)
    for kind in ("yaw", "still", "drive"):
        own, baseline = rows[kind, 1, "model"], rows[kind, 1, "repeat"]
        assert (own.psnr, own.ssim_seen, own.gradient) == (baseline.psnr, baseline.ssim_seen, baseline.gradient)
        assert own.change == 0
        assert own.motion == pytest.approx(0, abs=1e-3)
    assert rows["yaw", 1, "model"].gain == pytest.approx(0, abs=1e-5)
    assert rows["yaw", 1, "model"].residual == pytest.approx(30, abs=0.01)
    assert math.isnan(rows["still", 1, "model"].gain), "nothing was commanded, so there is no share of it"
    assert rows["still", 1, "repeat"].psnr == 60
    assert rows["yaw", 1, "warp"].psnr_seen > rows["yaw", 1, "repeat"].psnr_seen + 6


def test_a_model_that_turns_the_wrong_way_has_a_negative_gain(model: WorldModel, episodes: list[Episode]) -> None:
    backwards = episode("yaw", [0, 0, 0, 0, -30, 0], frames=17, size=SIZE).frames
    row = by_key(measure(Oracle(model, [backwards]), episodes[:1]).rows)["yaw", 1, "model"]
    assert row.gain == pytest.approx(-1, abs=0.1)
    assert row.residual == pytest.approx(60, abs=4)


def test_a_real_rollout_does_not_depend_on_the_batch(model: WorldModel, episodes: list[Episode]) -> None:
    done: list[int] = []
    alone = measure(model, episodes[:2], batch=1, progress=done.append)
    together = measure(model, episodes[:2], batch=2)
    assert done == [1, 1]
    for one, other, true in zip(alone.generated, together.generated, episodes, strict=False):
        assert one.shape == (17, SIZE, SIZE, 3)
        assert (one.int() - other.int()).abs().max() <= 2
        assert torch.equal(one[0], torch.from_numpy(true.frames[0]))


def test_frames_of_which_the_start_saw_nothing_are_left_out(model: WorldModel) -> None:
    spin = episode("yaw", [0, 0, 0, 0, 120, 0], frames=17, size=SIZE)
    row = by_key(measure(Oracle(model, [spin.frames]), [spin]).rows)["yaw", 1, "model"]
    assert 5 <= row.left_out <= 8, "70 degrees of view are passed after 9 of 16 frames"
    assert row.psnr_seen == 60


def test_gain_and_residual_of_a_camera_that_turns_half_as_far() -> None:
    asked = torch.tensor([[0.0, math.radians(2), 0.0]], dtype=torch.float64).expand(16, 3)
    figures = rotation_figures([asked / 2], [asked], fps=16.0)
    expected = {"commanded": 32, "gain": 0.5, "residual": 16, "motion": 16}
    assert figures == pytest.approx(expected)
    slow = rotation_figures([asked], [asked * 1e-3], fps=16.0)
    assert math.isnan(slow["gain"])


def test_commanded_rotation_of_a_path(episodes: list[Episode]) -> None:
    found = commanded_rotation(torch.from_numpy(episodes[0].c2w)).rad2deg() * 16
    assert torch.allclose(found, torch.tensor([0.0, 30, 0], dtype=torch.float64).expand(16, 3), atol=1e-3)


def test_bad_episodes_are_named(model: WorldModel, episodes: list[Episode]) -> None:
    with pytest.raises(InputError, match="at least one"):
        measure(model, [])
    with pytest.raises(EpisodeError, match="episode 1: expected depth"):
        measure(model, [episodes[0], dataclasses.replace(episodes[1], depth=None)])
    with pytest.raises(EpisodeError, match=r"meta\['path'\]"):
        measure(model, [dataclasses.replace(episodes[0], meta={})])
    with pytest.raises(EpisodeError, match=r"16\.0 frames/s, got 8\.0"):
        measure(model, [episodes[0], dataclasses.replace(episodes[1], fps=8.0)])
    with pytest.raises(EpisodeError, match=r"expected frames \(64, 64\), got \(32, 32\)"):
        measure(model, [episode("yaw", [0] * 6, frames=2, size=32)])
    with pytest.raises(EpisodeError, match="at least a second in steps of 4 frames, got 9 frames"):
        measure(model, [episode("yaw", [0] * 6, frames=12, size=SIZE)])
