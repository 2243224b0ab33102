"""Procedural rooms: their data, and that the pictures of them follow the pinhole convention to a pixel."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("pybullet", reason="rooms are drawn by PyBullet (extra: bullet)")

from sanawm_env.data import DataConfig, generate, plan_episode, render_episode
from sanawm_env.paths import look
from sanawm_env.render import SAMPLES, SceneRenderer, pinhole
from sanawm_env.scenes import SPLITS, make_scene, scene_seed
from sanawm_env.styles import STYLES, vocabulary
from world_model.errors import InputError
from world_model.train.data.episode import list_episodes, read_episode

SIZE = 96


@pytest.fixture(scope="module")
def renderer() -> Iterator[SceneRenderer]:
    with SceneRenderer(make_scene(scene_seed("val", 3))) as opened:
        yield opened


def rays(c2w: np.ndarray, intrinsics: np.ndarray, size: int) -> np.ndarray:
    """Directions (size, size, 3) in room axes through the pixels' centres, with unit depth along z."""
    fx, fy, cx, cy = intrinsics
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    return np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], axis=-1) @ c2w[:3, :3].T


def test_rooms_of_different_splits_never_share_a_seed() -> None:
    seeds = {split: {scene_seed(split, i, seed=s) for i in range(500) for s in (0, 1)} for split in SPLITS}
    assert [len(seeds[split]) for split in SPLITS] == [1000, 1000, 1000]
    train, val, test = (seeds[split] for split in SPLITS)
    assert max(train) < 2**60 <= min(val) <= max(val) < 2**61 <= min(test)
    with pytest.raises(InputError, match=r"expected one of \('train', 'val', 'test'\), got 'valid'"):
        scene_seed("valid", 0)


def test_a_scene_is_the_same_in_every_process() -> None:
    seed = scene_seed("train", 7)
    program = f"from sanawm_env.scenes import make_scene; print(make_scene({seed}))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(make_scene(seed))
    assert make_scene(seed) != make_scene(seed + 1)


def test_every_room_is_furnished_without_overlaps() -> None:
    styles = set()
    for index in range(60):
        scene = make_scene(scene_seed("train", index))
        styles.add(scene.style)
        names = [f.name for f in scene.features]
        assert set(names) & {"door", "doorway"}
        assert "window" in names
        assert len(scene.furniture) >= 2
        boxes = scene.space().boxes
        assert (boxes[:, 0] >= -0.01).all()
        assert (boxes[:, 1, :2] <= np.array(scene.size[:2]) + 0.01).all()
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert ((a[0] >= b[1]) | (a[1] <= b[0])).any(), f"room {index}: two things overlap"
        for wall in range(4):
            spans = sorted(f.u for f in scene.features if f.wall == wall)
            assert all(left[1] < right[0] for left, right in pairwise(spans))
    assert styles == set(STYLES)


def test_captions_name_the_goal_in_words_of_the_vocabulary() -> None:
    words = vocabulary()
    assert words == sorted(set(words))
    assert len(words) < 100
    for index in range(80):
        scene = make_scene(scene_seed("train", index))
        assert set(scene.caption.replace(",", "").split()) <= set(words)
        assert scene.caption.endswith(f"{scene.goal.colour} {scene.goal.name}")


def test_depth_of_the_walls_is_that_of_ray_casting(renderer: SceneRenderer) -> None:
    size = np.array(renderer.scene.size)
    intrinsics = np.array([80.0, 77.0, SIZE / 2 + 3, SIZE / 2 - 5])  # nothing symmetric
    c2w = look(size / 2, yaw=0.7, elevation=0.3)
    depth, bodies = renderer.depth(c2w, intrinsics, SIZE, SIZE)
    direction, origin = rays(c2w, intrinsics, SIZE), c2w[:3, 3]
    with np.errstate(divide="ignore"):
        exits = np.where(direction > 0, (size - origin) / direction, -origin / direction)
    expected = exits.min(axis=-1)
    # Openings lie deeper than their wall; furniture and goal are other bodies.
    walls = (bodies == renderer.bodies["room"]) & (depth < expected * 1.001)
    assert walls.mean() > 0.3
    np.testing.assert_allclose(depth[walls], expected[walls], rtol=2e-5)
    assert depth.dtype == np.float32


def test_a_known_object_appears_where_it_projects_to(renderer: SceneRenderer) -> None:
    goal = renderer.scene.goal
    intrinsics = pinhole(np.radians(70), SIZE, SIZE)
    centre = np.array(goal.centre)
    for yaw in (0.0, 2.0, 4.0):
        towards = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        c2w = look(centre - 0.9 * towards + [0, 0, 0.4], yaw + 0.2, -0.35)
        x, _, z = (np.linalg.inv(c2w) @ [*centre, 1])[:3]
        depth, bodies = renderer.depth(c2w, intrinsics, SIZE, SIZE)
        rows, columns = np.nonzero(bodies == renderer.bodies["goal"])
        assert len(rows) > 200
        middle = (columns.min() + columns.max() + 1) / 2
        assert middle == pytest.approx(intrinsics[0] * x / z + intrinsics[2], abs=2)  # solids are not flat
        assert depth[rows, columns].min() < z < depth[rows, columns].max() + goal.size[0]


def test_pictures_are_registered_to_a_fraction_of_a_pixel(renderer: SceneRenderer) -> None:
    """A picture agrees best with the average of a finer one when neither is shifted."""
    c2w = look(np.array(renderer.scene.size) / 2, yaw=2.5, elevation=-0.2)
    intrinsics = pinhole(np.radians(60), SIZE, SIZE)
    picture = renderer.render(c2w, intrinsics, SIZE, SIZE).astype(float)
    fine = renderer.render(c2w, intrinsics * 4, SIZE * 4, SIZE * 4).reshape(SIZE, 4, SIZE, 4, 3).mean(axis=(1, 3))
    error = np.mean((picture - fine) ** 2)
    for x, y in ([0.2, 0], [-0.2, 0], [0, 0.2], [0, -0.2]):
        moved = renderer.render(c2w, intrinsics + np.array([0, 0, x, y]), SIZE, SIZE)
        assert np.mean((moved - fine) ** 2) > 1.3 * error
    assert 10 * np.log10(255**2 / error) > 32
    assert np.mean(SAMPLES, axis=0) == pytest.approx([0.5, 0.5])


def test_rooms_have_no_holes() -> None:
    for index in (0, 4, 11):
        plan = plan_episode("val", index)
        with SceneRenderer(plan.scene) as renderer:
            for pose in plan.c2w[::16]:
                _, bodies = renderer.depth(pose, pinhole(plan.fov, SIZE, SIZE), SIZE, SIZE)
                assert (bodies >= 0).all()


def test_a_closed_renderer_says_so() -> None:
    with SceneRenderer(make_scene(0)) as renderer:
        pass
    renderer.close()
    with pytest.raises(InputError, match="closed"):
        renderer.render(np.eye(4), pinhole(1.0, 8, 8), 8, 8)


def test_an_episode_is_reproducible_and_complete() -> None:
    first, second = (render_episode("test", 4, frames=5, size=32, depth=True) for _ in range(2))
    for name in ("frames", "c2w", "intrinsics", "goal", "depth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.caption == second.caption
    assert first.meta == second.meta
    assert first.meta["path"] == "still"
    assert not np.array_equal(first.frames, render_episode("test", 4, frames=5, size=32, seed=1).frames)
    np.testing.assert_allclose(first.c2w[0], np.eye(4), atol=1e-7)


def test_the_goal_is_recorded_in_start_camera_axes() -> None:
    plan = plan_episode("val", 2, frames=5)
    episode = render_episode("val", 2, frames=5, size=32)
    assert episode.goal is not None
    back = plan.c2w[0] @ [*episode.goal, 1]
    np.testing.assert_allclose(back[:3], plan.scene.goal.centre, atol=1e-5)


def test_test_kinds_come_in_turn_and_always_fit() -> None:
    kinds = [plan_episode("test", index).kind for index in range(12)]
    assert kinds == ["yaw", "pitch", "forward", "strafe", "still", "random"] * 2
    forward = plan_episode("test", 2)
    assert np.linalg.norm(forward.c2w[64, :3, 3] - forward.c2w[0, :3, 3]) == pytest.approx(2.4)


def test_generation_resumes_and_mends(tmp_path) -> None:
    assert generate(tmp_path, "val", 2, frames=3) == 2
    before = {path: (path / "video.mp4").stat().st_mtime_ns for path in list_episodes(tmp_path / "val")}
    assert generate(tmp_path, "val", 2, frames=3) == 0
    broken, whole = sorted(before)
    content = (broken / "video.mp4").read_bytes()
    (broken / "video.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "val" / ".000002.1.part").mkdir()  # what a killed run leaves behind
    assert generate(tmp_path, "val", 2, frames=3) == 1
    assert (broken / "video.mp4").read_bytes() == content
    assert (whole / "video.mp4").stat().st_mtime_ns == before[whole]
    assert len(list_episodes(tmp_path / "val")) == 2


def test_two_workers_write_what_one_writes(tmp_path) -> None:
    assert generate(tmp_path / "two", "test", 2, workers=2, frames=3, start_index=3) == 2
    assert generate(tmp_path / "one", "test", 2, frames=3, start_index=3) == 2
    for name in ("000003", "000004"):
        one, two = (read_episode(tmp_path / n / "test" / name) for n in ("one", "two"))
        np.testing.assert_array_equal(one.frames, two.frames)
        np.testing.assert_array_equal(one.depth, two.depth)
        np.testing.assert_array_equal(one.c2w, two.c2w)


def test_the_commands_options_are_checked(tmp_path) -> None:
    with pytest.raises(InputError, match="expected an integer >= 1, got 0"):
        DataConfig(out=tmp_path, episodes=0)
    with pytest.raises(InputError, match="got 'dev'"):
        DataConfig(out=tmp_path, episodes=1, split="dev")


def test_drawing_without_pybullet_says_what_to_install() -> None:
    program = "import sys; sys.modules['pybullet'] = None; import sanawm_env.data; import sanawm_env.render"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert "BackendError: rooms: expected PyBullet (pip install 'sanawm-env[bullet]'), got none" in done.stderr
