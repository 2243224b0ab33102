"""Any engine stands behind the environments: one that shows how far the camera has come, in grey."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.camera_vector import CameraVectorEnv
from sanawm_env.engine import Chunk, Pixels
from sanawm_env.snapshot import EnvState
from sanawm_env.starts import Start, choose_start
from sanawm_env.worlds import ArrayWorlds
from world_model.config import WorldConfig
from world_model.errors import InputError, StateError
from world_model.presets import nano

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
BANK = (Start(name="grey", image=np.zeros((128, 128, 3), np.uint8), goal=np.array([0, 0, 3.0])),)


class GreyEngine:
    """Grey is 100 times the metres ahead, and tells them as `ahead`."""

    signals = ("ahead",)
    has_latents = False
    fingerprint = "grey"

    def __init__(self, config: WorldConfig) -> None:
        self.config, self.closed, self.asked = config, 0, []

    def choose(self, options: Mapping[str, Any] | None, bank: Sequence[Start], rng: np.random.Generator) -> Start:
        return choose_start(options, bank, rng)

    def begin(self, starts: Sequence[Start], seeds: Sequence[int], pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        worlds = ArrayWorlds(model=self.fingerprint, arrays={"seed": np.array(seeds, np.int64)})
        return self.advance(worlds, np.tile(np.eye(4), (len(starts), 1, 1, 1)), pixels)

    def intrinsics(self, worlds: ArrayWorlds) -> np.ndarray:
        return np.tile(np.float32([64, 64, 64, 64]), (len(worlds), 1))

    def advance(self, worlds: ArrayWorlds, paths: np.ndarray, pixels: Pixels) -> tuple[ArrayWorlds, Chunk]:
        self.asked.append(pixels)
        ahead = paths[:, :, 2, 3]
        grey = np.broadcast_to(
            (100 * ahead).round().astype(np.uint8)[..., None, None, None], (*ahead.shape, 128, 128, 3)
        )
        frames = {"none": None, "last": grey[:, -1:], "all": grey}[pixels]
        signals = tuple({"ahead": np.array(metres)} for metres in ahead[:, -1])
        return worlds, Chunk(poses=paths, frames=frames, latents=None, signals=signals)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def engine() -> GreyEngine:
    return GreyEngine(nano(vocabulary=("a",)))


def test_its_frames_and_signals_reach_the_agent(engine: GreyEngine) -> None:
    env = CameraEnv(engine, Settings(bank=BANK))
    frame, info = env.reset(seed=0)
    assert (frame.max(), info["ahead"], info["scene"]) == (0, 0.0, "grey")
    frame, reward, *_, info = env.step(AHEAD)
    assert (frame.min(), info["ahead"]) == (25, pytest.approx(0.25))
    assert reward == pytest.approx(0.25)
    assert env.observation_space.contains(frame)
    env.close()
    assert engine.closed == 1


def test_it_is_asked_only_for_pixels_that_somebody_looks_at(engine: GreyEngine) -> None:
    for settings, expected in (
        (Settings(bank=BANK), "last"),
        (Settings(bank=BANK, info_frames=True), "all"),
        (Settings(bank=BANK, render_mode="rgb_array"), "last"),
    ):
        env = CameraEnv(engine, settings)
        env.reset(seed=0)
        info = env.step(AHEAD)[-1]
        assert engine.asked[-2:] == [expected] * 2
        if expected == "all":
            np.testing.assert_array_equal(info["frames"][:, 0, 0, 0], [6, 12, 19, 25])


def test_snapshots_forks_and_many_worlds_come_with_it(engine: GreyEngine, tmp_path: Path) -> None:
    env = CameraEnv(engine, Settings(bank=BANK))
    env.reset(seed=0)
    env.step(AHEAD)
    state = env.get_state()
    state.save(tmp_path)
    expected = env.step(AHEAD)
    env.set_state(EnvState.load(tmp_path))
    assert data_equivalence(env.step(AHEAD), expected, exact=True)
    env.set_state(state)
    assert data_equivalence(env.fork(2)[1].step(AHEAD), expected, exact=True)
    worlds = CameraVectorEnv(CameraEnv(engine, Settings(bank=BANK)), 3)
    worlds.set_state(state.fork(3))
    frames, rewards, *_ = worlds.step(np.stack([AHEAD, 0 * AHEAD, -AHEAD]))
    assert frames[:, 0, 0, 0].tolist() == [50, 25, 0]
    np.testing.assert_allclose(rewards, [0.25, 0, -0.25])


def test_what_it_does_not_have_is_refused(engine: GreyEngine) -> None:
    with pytest.raises(InputError, match="obs: expected pixels from grey, which has no latents, got 'latent'"):
        CameraEnv(engine, Settings(obs="latent"))
    env = CameraEnv(engine, Settings(bank=BANK))
    env.reset(seed=0)
    other = GreyEngine(engine.config)
    other.fingerprint = "greyer"
    with pytest.raises(StateError, match="expected a snapshot of model greyer, got one of grey"):
        CameraEnv(other, Settings(bank=BANK)).set_state(env.get_state())
    with pytest.raises(InputError, match=r"render_mode: expected .* got 'ansi'"):
        Settings(render_mode="ansi")
