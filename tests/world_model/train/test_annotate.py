"""What annotation computes without structure from motion: joining, smoothing, filters, metres, reports."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from world_model.errors import EpisodeError, InputError
from world_model.train.data import annotate_filters as filters
from world_model.train.data import annotate_smooth as smoothing
from world_model.train.data.annotate import AnnotateConfig
from world_model.train.data.annotate_footage import open_footage, upright
from world_model.train.data.annotate_join import Chunk, Similarity, align, align_positions, angles, join, spans
from world_model.train.data.annotate_parallax import parallax
from world_model.train.data.annotate_scale import (
    Baseline,
    CameraHeight,
    Path3D,
    Reference,
    SceneDepth,
    read_reference,
)
from world_model.train.data.poses import rigid


def walk(count: int) -> np.ndarray:
    """A curved path that looks about: (count, 4, 4)."""
    t = np.arange(count) / 10
    vector = np.stack([0.1 * np.sin(t), 0.4 * t, 0.05 * np.cos(t)], 1)
    return rigid(smoothing.exp(vector), np.stack([np.sin(t), 0.1 * np.cos(2 * t), t], 1))


def observe(c2w: np.ndarray, frames: np.ndarray, points: np.ndarray) -> Chunk:
    """A chunk that sees all points from all frames."""
    depth = ((points[None] - c2w[:, None, :3, 3]) * c2w[:, None, :3, 2]).sum(-1)
    seen = np.stack(np.broadcast_arrays(frames[:, None], np.arange(len(points))), -1).reshape(-1, 2)
    offset = (points[None] - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]  # camera axes
    return Chunk(
        frames=frames,
        c2w=c2w,
        focal=100.0,
        turned=0.5,
        seen=seen,
        depth=depth.ravel(),
        point=np.tile(np.arange(len(points)), len(frames)),
        pixel=(100 * offset[..., :2] / offset[..., 2:]).reshape(-1, 2),
        points=points,
        error=0.5,
    )


def moved(chunk: Chunk, move: Similarity) -> Chunk:
    return dataclasses.replace(
        chunk, c2w=move.poses(chunk.c2w), depth=chunk.depth * move.scale, points=move.points(chunk.points)
    )


def chunks_of_a_walk(length: int = 24, overlap: int = 8) -> tuple[np.ndarray, list[Chunk]]:
    """A walk, and chunks of it, each in a world of its own."""
    rng = np.random.default_rng(3)
    path, points = walk(61), rng.uniform([-3, -3, 27], [3, 3, 33], (40, 3))
    chunks = []
    for first, end in spans(61, length, overlap):
        frames = np.arange(first, end)
        move = Similarity(
            scale=float(rng.uniform(0.2, 5)), rotation=smoothing.exp(rng.normal(size=3)), shift=rng.normal(size=3)
        )
        chunks.append(moved(observe(path[frames], frames, points), move))
    return path, chunks


def test_rotation_vectors_there_and_back() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3)) * rng.choice([1e-9, 0.1, 1.0], (50, 1))
    matrices = smoothing.exp(vectors)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    short = np.linalg.norm(vectors, axis=1) < np.pi
    np.testing.assert_allclose(smoothing.log(matrices)[short], vectors[short], atol=1e-9)


@pytest.mark.parametrize(
    ("count", "length", "overlap"), [(5, 24, 8), (24, 24, 8), (25, 24, 8), (61, 24, 8), (97, 7, 3)]
)
def test_spans_cover_everything_and_overlap(count: int, length: int, overlap: int) -> None:
    found = spans(count, length, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == count
    assert all(end - first == min(length, count) for first, end in found)
    assert all(a[1] - b[0] >= overlap for a, b in itertools.pairwise(found))


def test_chunks_of_different_worlds_become_one_path() -> None:
    path, chunks = chunks_of_a_walk()
    (whole,) = join(chunks)
    move = align_positions(whole.c2w[:, :3, 3], path[:, :3, 3])
    back = move.poses(whole.c2w)
    np.testing.assert_array_equal(whole.frames, np.arange(61))
    np.testing.assert_allclose(back, path, atol=1e-8)
    assert whole.depth.min() < chunks[0].depth.min()  # in the first chunk's scale: the walk comes nearer
    points = move.points(whole.points)
    np.testing.assert_allclose(points[40:80], points[:40], atol=1e-8)


def test_scale_comes_from_depths_where_the_camera_only_turns() -> None:
    frames = np.arange(20)
    c2w = walk(20)
    c2w[10:, :3, 3] = c2w[10, :3, 3]  # the shared frames all lie in one place
    points = np.random.default_rng(1).uniform([-3, -3, 22], [3, 3, 28], (30, 3))
    first, second = observe(c2w[:18], frames[:18], points), observe(c2w[12:], frames[12:], points)
    move = align(first, moved(second, Similarity(scale=4.0, rotation=np.eye(3), shift=np.ones(3))))
    assert move is not None
    assert move.scale == pytest.approx(0.25)


def test_chunks_that_disagree_stay_apart() -> None:
    _, chunks = chunks_of_a_walk()
    noise = np.exp(np.random.default_rng(0).normal(size=chunks[1].depth.shape))
    assert len(join([chunks[0], dataclasses.replace(chunks[1], depth=chunks[1].depth * noise)])) == 2
    assert len(join([chunks[0], chunks[2]])) == 2  # nothing shared
    twisted = chunks[1].c2w.copy()
    twisted[:, :3, :3] = twisted[:, :3, :3] @ smoothing.exp(np.linspace(0, 1, len(twisted))[:, None] * [0, 0, 3.0])
    assert len(join([chunks[0], dataclasses.replace(chunks[1], c2w=twisted)])) == 2


def test_alignment_refuses_a_path_that_stands_still() -> None:
    with pytest.raises(EpisodeError, match="at least 3 positions that differ"):
        align_positions(np.zeros((5, 3)), np.arange(15.0).reshape(5, 3))


def test_an_outlier_is_found_and_only_that() -> None:
    path = walk(41)
    assert smoothing.steady(np.arange(41), path, 3.0).all()
    path[17, :3, 3] += [0.5, 0, 0]
    path[30, :3, :3] = path[30, :3, :3] @ smoothing.exp(np.array([0, 0.2, 0]))
    np.testing.assert_array_equal(np.flatnonzero(~smoothing.steady(np.arange(41), path, 3.0)), [17, 30])


def test_abrupt_starts_and_turns_are_no_outliers() -> None:
    t = np.arange(41)
    turned = np.where(t > 20, t - 20, 0)[:, None] * [0, 0.12, 0]
    path = rigid(smoothing.exp(turned), np.abs(t - 12)[:, None] * [0.2, 0, 0])
    assert smoothing.steady(t, path, 3.0).all()


def test_holes_are_filled_and_long_ones_cut() -> None:
    known = np.array([0, 1, 3, 4, 9, 10])
    assert [piece.tolist() for piece in smoothing.pieces(known, 2)] == [[0, 1, 3, 4], [9, 10]]
    path = rigid(smoothing.exp(np.arange(11)[:, None] * [0, 0.1, 0]), np.arange(11)[:, None] * [0.0, 0, 1])
    np.testing.assert_allclose(smoothing.fill(known, path[known]), path, atol=1e-12)  # even motion: exact


def test_smoothing_keeps_parabolas_and_halves_noise() -> None:
    t = np.arange(30.0)
    curve = rigid(smoothing.exp(t[:, None] * [0, 0.02, 0]), np.stack([t, t**2, 3 - t], 1) / 30)
    np.testing.assert_allclose(smoothing.smooth(curve, 2), curve, atol=1e-9)
    rng = np.random.default_rng(0)
    noisy = rigid(
        curve[:, :3, :3] @ smoothing.exp(rng.normal(size=(30, 3)) * 0.01), curve[:, :3, 3] + rng.normal(size=(30, 3))
    )
    better = smoothing.smooth(noisy, 4)
    for before, after in (
        (noisy[:, :3, 3] - curve[:, :3, 3], better[:, :3, 3] - curve[:, :3, 3]),
        (angles(noisy[:, :3, :3], curve[:, :3, :3]), angles(better[:, :3, :3], curve[:, :3, :3])),
    ):
        assert np.square(after).mean() < 0.5 * np.square(before).mean()
    assert smoothing.smooth(noisy, 0) is noisy


def test_cuts_and_blur() -> None:
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.uniform(0, 255, (4, 4)), np.ones((16, 20))) for _ in range(2)]
    frames = [np.roll(scenes[i // 20], i, axis=1).astype(np.uint8) for i in range(40)]
    assert filters.shots(np.array([filters.thumb(frame) for frame in frames])) == [(0, 20), (20, 40)]
    sharp = np.array([filters.sharpness(frame) for frame in frames[:20]])
    smeared = frames[7].astype(np.float32)
    for shift in range(1, 6):
        smeared += np.roll(frames[7], shift, 0).astype(np.float32) + np.roll(frames[7], shift, 1)
    sharp[7] = filters.sharpness((smeared / 11).astype(np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(filters.blurred(sharp, 0.3)), [7])


def test_complaints_name_what_is_wrong() -> None:
    good = filters.Quality(registered=1.0, blurred=0.0, extent=0.3, parallax=5.0, error=0.5, speed=0.05)
    assert filters.complaints(good, filters.Limits()) == ()
    for name, value, word in (
        ("registered", 0.5, "failed registration: 50%"),
        ("blurred", 0.6, "blur: 60%"),
        ("extent", 0.001, "too little motion"),
        ("parallax", 0.4, "too little parallax: 0.4 pixels"),
        ("error", 4.0, "inexact"),
        ("speed", 3.0, "a jump"),
    ):
        (said,) = filters.complaints(dataclasses.replace(good, **{name: value}), filters.Limits())
        assert said.startswith(word)
    with pytest.raises(InputError, match="registered: expected 0 to 1, got 2"):
        filters.Limits(registered=2)


def room(unit: float) -> Path3D:
    """A walk 1.5 m above a floor, with a table and walls, in a unit of `unit` metres."""
    rng = np.random.default_rng(0)
    floor = np.stack([rng.uniform(-3, 3, 300), 1.5 + rng.normal(size=300) * 0.005, rng.uniform(1, 6, 300)], 1)
    table = np.stack([rng.uniform(-1, 1, 150), np.full(150, 0.7), rng.uniform(2, 3, 150)], 1)
    walls = rng.uniform([-3, -1, 6], [3, 1.5, 6.1], (300, 3))
    c2w = walk(40)
    c2w[:, 1, 3] = 0
    c2w[:, :3, 3] /= unit
    lean = rigid(smoothing.exp(np.array([[0.15, 0, 0.05]])), np.zeros((1, 3)))[0]
    points = np.concatenate([floor, table, walls]) / unit
    return Path3D(times=np.arange(40) / 10, c2w=lean @ c2w, points=points @ lean[:3, :3].T, depth=float(4 / unit))


def test_parallax_is_what_turning_cannot_explain() -> None:
    points = np.random.default_rng(0).uniform([-4, -4, 3], [4, 4, 9], (80, 3))
    frames = np.arange(40)
    turn = smoothing.exp(frames[:, None] * [0, 0.01, 0.002])
    off = {}
    for name, step in (("turning", 0.0), ("walking", 0.02)):
        chunk = observe(rigid(turn, frames[:, None] * [step, 0.0, 0.0]), frames, points)
        noisy = chunk.pixel + np.random.default_rng(1).normal(size=chunk.pixel.shape) * 0.3
        off[name] = parallax(chunk.seen[:, 0], chunk.point, noisy, focal=90.0)  # the lens is wrong, too
    assert off["turning"] < 0.6 < filters.Limits().parallax
    assert off["walking"] > 1.2 > filters.Limits().parallax
    assert parallax(chunk.seen[:5, 0], chunk.point[:5], chunk.pixel[:5], focal=90.0) == 0.0


def test_every_way_to_metres_agrees() -> None:
    path = room(unit=0.37)
    true = walk(40)
    true[:, 1, 3] = 0
    length = float(np.linalg.norm(true[30, :3, 3] - true[5, :3, 3]))
    assert Baseline(0.5, 3.0, length).metres(path) == pytest.approx(0.37)
    assert SceneDepth(4.0).metres(path) == pytest.approx(0.37)
    assert CameraHeight(1.5).metres(path) == pytest.approx(0.37, rel=0.02)
    assert Reference(times=path.times, positions=true[:, :3, 3]).metres(path) == pytest.approx(0.37)


def test_metres_that_do_not_apply_are_refused() -> None:
    path = room(unit=1.0)
    with pytest.raises(EpisodeError, match=r"holds 2 to 9 s, got one of 0\.0 to 3\.9"):
        Baseline(2.0, 9.0, 1.0).metres(path)
    still = dataclasses.replace(path, c2w=np.tile(np.eye(4), (40, 1, 1)))
    with pytest.raises(EpisodeError, match="a camera that moves"):
        Baseline(0.0, 2.0, 1.0).metres(still)
    with pytest.raises(EpisodeError, match="a floor in view"):
        CameraHeight(1.5).metres(dataclasses.replace(path, points=path.points[-300:-290]))
    late = Reference(times=path.times + 60, positions=path.c2w[:, :3, 3])
    with pytest.raises(EpisodeError, match="to cover"):
        late.metres(path)


def test_reference_files(tmp_path: Path) -> None:
    file = tmp_path / "walk.txt"
    file.write_text("# t x y z qx qy qz qw\n0 0 0 0 0 0 0 1\n0.5 1 0 0 0 0 0 1\n\n1.0, 2, 0, 0\n")
    np.testing.assert_array_equal(read_reference(file).positions[:, 0], [0, 1, 2])
    for text in ("0 1 2\n1 2 3\n2 3 4\n", "0 0 0 0\n0 1 1 1\n1 1 1 1\n", "a b c d\n", ""):
        file.write_text(text)
        with pytest.raises(InputError, match=r"walk\.txt: expected"):
            read_reference(file)


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.touch()
    with pytest.raises(InputError, match=r"expected one of --camera-height.*got \[\]"):
        AnnotateConfig(videos=(video,))
    with pytest.raises(InputError, match="--baseline: expected a single video, got 2"):
        AnnotateConfig(videos=(video, tmp_path / "b.mp4"), baseline=(0, 1, 1))
    with pytest.raises(InputError, match=r"expected files, got none at .*b\.mp4"):
        AnnotateConfig(videos=(video, tmp_path / "b.mp4"), scene_depth=3)
    with pytest.raises(InputError, match="different names"):
        AnnotateConfig(videos=(video, tmp_path / "more" / "a.mov"), scene_depth=3)


def test_files_that_are_no_video_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos are read by av")
    file = tmp_path / "notes.mp4"
    file.write_text("this is no video")
    with pytest.raises(EpisodeError, match=r"notes\.mp4: expected a video"):
        open_footage(file, 16.0)


def test_a_phones_picture_is_turned_up() -> None:
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(upright(image, 0), image)
    np.testing.assert_array_equal(upright(image, 90), [[2, 5], [1, 4], [0, 3]])  # counter-clockwise
    np.testing.assert_array_equal(upright(image, -90), [[3, 0], [4, 1], [5, 2]])
    with pytest.raises(EpisodeError, match="steps of 90 degrees, got 45"):
        upright(image, 45)
