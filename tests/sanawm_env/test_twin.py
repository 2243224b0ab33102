"""The twin beside the world model: same scenes, draws, paths and rewards; only the pixels are true."""

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

from sanawm_env.depth_views import DEPTH_VIEWS
from sanawm_env.env import SanaWMEnv
from sanawm_env.scenes import make_scene
from sanawm_env.snapshot import EnvState
from sanawm_env.twin import SanaWMTwinEnv, SanaWMTwinVectorEnv
from sanawm_env.vector import SanaWMVectorEnv
from world_model.checkpoint import ASSETS
from world_model.errors import InputError, StateError

pytest.importorskip("pybullet")

AHEAD = np.array([0, 0, 1, 0, 0, 0], np.float32)
TURN = np.array([0.3, 0, 0.2, 0, 1, 0], np.float32)
BANK = ASSETS / "nano" / "starts"


@pytest.fixture
def twin(model_folder: Path) -> Iterator[SanaWMTwinEnv]:
    """A small one: 64x64 pixels, with the rooms of the shipped bank."""
    env = SanaWMTwinEnv(model=model_folder, starts=BANK)
    yield env
    env.close()


def test_start_frames_are_those_of_the_bank() -> None:
    twin = SanaWMTwinEnv(model="nano")
    for scene in (0, 7):
        frame, info = twin.reset(seed=0, options={"scene": scene})
        start = twin.simulator.bank[scene]
        assert np.abs(frame.astype(int) - start.image).max() <= 1  # another processor may round otherwise
        np.testing.assert_array_equal(info["intrinsics"], start.intrinsics)
        np.testing.assert_array_equal(info["goal"], start.goal)
    twin.close()


def test_both_draw_go_and_pay_alike(model_folder: Path, fly: Callable[..., list[Any]], twin: SanaWMTwinEnv) -> None:
    generated = SanaWMEnv(model=model_folder, starts=BANK)
    for seed in (0, 5):
        ours, theirs = fly(twin, seed), fly(generated, seed)
        for one, other in zip(ours, theirs, strict=True):
            assert one[0].shape == other[0].shape
            for key in set(one[-1]) & set(other[-1]):
                assert data_equivalence(one[-1][key], other[-1][key], exact=True), key
            if len(one) == 5:
                assert one[1:4] == other[1:4]
        assert ours[0][-1]["scene"] == theirs[0][-1]["scene"]
        assert not np.array_equal(ours[-1][0], theirs[-1][0])
    assert twin.action_space == generated.action_space
    assert twin.observation_space == generated.observation_space
    assert twin.metadata["render_fps"] == generated.metadata["render_fps"]


def test_depth_is_where_walls_and_goal_are(model_folder: Path) -> None:
    twin = SanaWMTwinEnv(model=model_folder, starts=BANK, obs="rgbd", task="none")
    seen, info = twin.reset(seed=0, options={"scene": 0})
    np.testing.assert_array_equal(seen["depth"], info["depth"])
    x, y, z = info["goal"]
    fx, fy, cx, cy = info["intrinsics"]
    depth = seen["depth"][int(fy * y / z + cy), int(fx * x / z + cx), 0]
    assert z - 0.45 < depth < z  # the near side of what the goal is
    # Every pixel's point lies in the room's box, windows and doorways of up to 1.6 m beyond it aside.
    rows, columns = np.mgrid[:64, :64] + 0.5
    rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], -1)
    assert twin.world is not None
    pose = twin.world.arrays["start"][0]
    points = (rays * seen["depth"]).reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    size = make_scene(int(twin.world.arrays["scene"][0])).size
    inside = ((points > -0.02) & (points < np.array(size) + 0.02)).all(1)
    assert inside.mean() > 0.9
    nearer = twin.step(AHEAD)[0]["depth"]
    assert np.median(nearer) < np.median(seen["depth"])


def test_any_procedural_room(twin: SanaWMTwinEnv) -> None:
    _, info = twin.reset(seed=0, options={"room": {"split": "val", "index": 3}})
    assert info["scene"] == "val-3"
    same = twin.reset(seed=1, options={"room": {"split": "val", "index": 3, "seed": 0}})[1]
    np.testing.assert_array_equal(same["goal"], info["goal"])
    assert twin.reset(seed=1, options={"room": {"index": 3, "seed": 2}})[1]["scene"] == "test-3-of-2"
    # A room of the bank by its number is the bank's start.
    meta = twin.simulator.bank[2].meta
    one = twin.reset(seed=0, options={"room": {"split": "test", "index": meta["index"]}})
    other = twin.reset(seed=0, options={"scene": 2})
    np.testing.assert_array_equal(one[1]["goal"], other[1]["goal"])
    np.testing.assert_array_equal(one[0], other[0])


def test_the_world_model_starts_from_a_twins_view(model_folder: Path, twin: SanaWMTwinEnv) -> None:
    generated, made = SanaWMEnv(model=model_folder, starts=BANK), gym.make("SanaWMTwin-v0", model=model_folder)
    with pytest.raises(StateError, match="current_start: expected a running episode"):
        generated.reset(options={"twin": made})
    twin.reset(seed=3)
    frame, *_, info = twin.step(TURN)
    start, told = generated.reset(seed=0, options={"twin": twin})
    np.testing.assert_array_equal(start, frame)
    np.testing.assert_array_equal(told["intrinsics"], info["intrinsics"])
    assert told["prompt"] == twin.episode.prompt  # pyright: ignore[reportOptionalMemberAccess]
    np.testing.assert_allclose((info["pose"] @ [*told["goal"], 1])[:3], info["goal"], atol=1e-12)
    # Another twin goes on from there as the first one does.
    other = SanaWMTwinEnv(model=model_folder, starts=BANK)
    other.reset(seed=0, options={"twin": twin})
    expected, got = twin.step(AHEAD), other.step(AHEAD)
    np.testing.assert_array_equal(got[0], expected[0])
    assert got[1] == pytest.approx(expected[1])
    other.close()


def test_contact_is_told_and_walls_stop_only_whom_they_should(model_folder: Path) -> None:
    ends = {}
    for collide in (False, True):
        twin = SanaWMTwinEnv(model=model_folder, starts=BANK, task="none", collide=collide)
        _, info = twin.reset(seed=0, options={"scene": 1})
        assert info["contact"] is False
        told = [twin.step(AHEAD)[-1] for _ in range(40)]  # ten metres: through any wall
        assert told[0]["contact"] is False
        assert any(info["contact"] for info in told)
        pose = twin.world.arrays["start"][0] @ told[-1]["pose"]  # pyright: ignore[reportOptionalMemberAccess]
        size = make_scene(int(twin.world.arrays["scene"][0])).size  # pyright: ignore[reportOptionalMemberAccess]
        ends[collide] = bool((pose[:3, 3] > 0).all() and (pose[:3, 3] < size).all())
        if not collide:
            assert told[-1]["pose"][2, 3] == pytest.approx(10.0)
        twin.close()
    assert ends == {False: False, True: True}


def test_snapshots_are_refused_by_name(model_folder: Path, twin: SanaWMTwinEnv, tmp_path: Path) -> None:
    generated = SanaWMEnv(model=model_folder, starts=BANK)
    generated.reset(seed=0)
    twin.reset(seed=0)
    twin.get_state().save(tmp_path)
    with pytest.raises(StateError, match=r"expected a snapshot of model small-nano.*, got one of twin-of-rooms"):
        generated.set_state(EnvState.load(tmp_path))
    with pytest.raises(StateError, match=r"expected a snapshot of model twin-of-rooms.*, got one of small-nano"):
        twin.set_state(generated.get_state())
    deep = SanaWMTwinEnv(model=model_folder, starts=BANK, depth=True)
    with pytest.raises(StateError, match=r"expected a snapshot that tells \['contact', 'depth'\] .*got"):
        deep.set_state(twin.get_state())
    full = SanaWMTwinEnv(model=model_folder, starts=BANK, info_frames=True)
    twin.step(AHEAD)
    with pytest.raises(StateError, match="expected a snapshot with all frames of its step"):
        full.set_state(twin.get_state())


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_many_twins_are_single_ones(model_folder: Path, mode: AutoresetMode) -> None:
    given = {"model": str(model_folder), "starts": str(BANK), "max_episode_steps": 2, "depth": True}
    ours = gym.make_vec("SanaWMTwin-v0", num_envs=2, autoreset_mode=mode.value, **given)
    assert isinstance(ours.unwrapped, SanaWMTwinVectorEnv)
    theirs = gym.make_vec(
        "SanaWMTwin-v0", num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **given
    )
    assert data_equivalence(*(env.reset(seed=3) for env in (ours, theirs)), exact=True)
    for step in range(3):
        results = [env.step(np.stack([AHEAD, TURN])) for env in (ours, theirs)]
        assert data_equivalence(*results, exact=True)
        if mode is AutoresetMode.DISABLED and step == 1:
            mask = {"reset_mask": np.array([True, True])}
            assert data_equivalence(*(env.reset(options=dict(mask)) for env in (ours, theirs)), exact=True)
    views = ours.unwrapped.call("current_start")
    assert [view.image.shape for view in views] == [(64, 64, 3)] * 2
    ours.close()
    theirs.close()


def test_it_travels_and_lets_go_of_pybullet(twin: SanaWMTwinEnv) -> None:
    twin.reset(seed=1)
    twin.step(TURN)
    others = [pickle.loads(pickle.dumps(twin)), copy.deepcopy(twin), *twin.fork(1)]
    expected = twin.step(AHEAD)
    for other in others:
        assert data_equivalence(other.step(AHEAD), expected, exact=True)
    renderers = twin.simulator.engine._renderers
    assert len(renderers) == 1
    client = next(iter(renderers._open.values()))
    for env in (*others, twin, twin):
        env.close()
    assert len(renderers) == 0
    assert client._client == -1
    twin.step(AHEAD)  # takes hold again


@pytest.mark.parametrize("obs", ["dict", "depth", "rgbd"])
def test_gymnasium_finds_nothing_to_complain_about(model_folder: Path, obs: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("SanaWMTwin-v0", model=str(model_folder), starts=str(BANK), obs=obs, render_mode="rgb_array")
        check_env(made.unwrapped)
        made.reset(seed=0)
        assert made.render().shape == (64, 64, 3)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        made.close()
        made.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": np.zeros((64, 64, 3), np.uint8)}, r"expected a scene that can be rendered .*got \['image'\]"),
        ({"room": 3}, "room: expected a mapping with 'index'.*got 3"),
        ({"room": {"index": 3, "colour": 1}}, "room: expected a mapping"),
        ({"room": {"index": -1}}, "room: index: expected an integer >= 0, got -1"),
        ({"room": {"index": 0, "split": "exam"}}, "split: expected one of .*got 'exam'"),
        ({"room": {"index": 0}, "scene": 1}, "expected one of 'room', 'scene' and 'twin', got 'room' and"),
        ({"twin": 5}, "twin: expected an environment with current_start.*got 5"),
        ({"picture": 1}, "expected keys out of"),
    ],
)
def test_bad_options(twin: SanaWMTwinEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        twin.reset(seed=0, options=options)


def test_what_a_twin_cannot_be(model_folder: Path) -> None:
    with pytest.raises(InputError, match="obs: expected pixels or depth from a twin, which has no latents"):
        SanaWMTwinEnv(model=model_folder, obs="latent")
    with pytest.raises(InputError, match=r"obs: expected one of \['depth', .*'rgbd'\], got 'x'"):
        SanaWMTwinEnv(model=model_folder, obs="x")
    pictures = SanaWMTwinEnv(model=model_folder)  # whose bank shows no rooms
    with pytest.raises(
        InputError, match=r"expected one that leads back to its room, got one whose meta lacks \['pose'"
    ):
        pictures.reset(seed=0)


def test_without_pybullet_the_extra_is_named(model_folder: Path) -> None:
    program = f"""
import sys
sys.modules["pybullet"] = None
import gymnasium as gym, sanawm_env
gym.make("SanaWM-v0", model={str(model_folder)!r}).reset(seed=0)
try:
    gym.make("SanaWMTwin-v0")
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert "BackendError rooms: expected PyBullet (pip install 'sanawm-env[bullet]'), got none" in done.stdout, done


def arguments(kind: type) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(kind).parameters.items()}


def test_constructors_agree() -> None:
    """Four signatures are written out for those who read them; what they share is the same."""
    only_vector = {"num_envs", "max_episode_steps", "autoreset_mode"}
    for single, many in ((SanaWMEnv, SanaWMVectorEnv), (SanaWMTwinEnv, SanaWMTwinVectorEnv)):
        assert {n: d for n, d in arguments(many).items() if n not in only_vector} == arguments(single)
    generated, true = arguments(SanaWMEnv), arguments(SanaWMTwinEnv)
    shared = generated.keys() & true.keys()
    assert {n: generated[n] for n in shared} == {n: true[n] for n in shared}
    assert generated.keys() - shared == {"device", "reliability", "min_reliability"}
    assert true.keys() - shared == {"depth", "collide"}


def test_the_docstring_is_the_datasheet(twin: SanaWMTwinEnv) -> None:
    text = SanaWMTwinEnv.__doc__ or ""
    page = (Path(__file__).parents[2] / "docs" / "twin.md").read_text()
    for essential in ("contact", "depth", "collide", "room", "scene", "twin", "prompt", "goal", "image", "model"):
        assert f"`{essential}`" in text, essential
        assert f"`{essential}`" in page, essential
    for name in (*DEPTH_VIEWS, "latent"):
        assert f'"{name}"' in text, name
        assert f'"{name}"' in page, name
    for essential in ("0.12 m", "Box(0, 40, (H, W, 1), float32)", "Box(-1, 1, (6,), float32)", "not"):
        assert essential in text, essential
        assert essential in page, essential
