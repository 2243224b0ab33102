"""Annotation end to end: a clip of a rendered room with a known path, encoded, annotated, read back, compared."""

import json
from pathlib import Path

import numpy as np
import pytest

from world_model.errors import EpisodeError
from world_model.train.data.annotate import AnnotateConfig, annotate
from world_model.train.data.annotate_join import align_positions, angles, mean_rotation
from world_model.train.data.annotate_report import table
from world_model.train.data.annotate_shot import Search
from world_model.train.data.episode import list_episodes
from world_model.train.data.source import open_entries
from world_model.train.data.video import encode_video

pytest.importorskip("pycolmap", reason="extra annotate")
pytest.importorskip("pybullet", reason="extra bullet: the clip is rendered")
av = pytest.importorskip("av", reason="the clip is encoded by av")

FRAMES, SIZE = 41, 192


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory):
    """A video of a camera that slides by a cupboard and turns, and its truth."""
    from sanawm_env.data import render_episode

    truth = render_episode("val", 1, kind="orbit", frames=FRAMES, size=SIZE)
    path = tmp_path_factory.mktemp("clip") / "orbit.mp4"
    encode_video(path, truth.frames, truth.fps, crf=17, colour="yuv420p")
    path.with_suffix(".txt").write_text("a green room\nwith tiles")
    return path, truth


def config(video: Path, out: Path, **options: object) -> AnnotateConfig:
    search = Search(every=2, chunk=16, overlap=8, shortest=17)
    return AnnotateConfig(videos=(video,), out=out, size=(64, 64), search=search, **options)


def test_a_clip_gets_its_path_lens_and_metres_back(clip, tmp_path: Path) -> None:
    video, truth = clip
    reference = tmp_path / "reference.txt"
    moments = np.arange(FRAMES) / truth.fps
    np.savetxt(reference, np.column_stack([moments, truth.c2w[:, :3, 3]]))
    field_of_view = float(np.degrees(2 * np.arctan(SIZE / 2 / truth.intrinsics[0, 0])))
    out = tmp_path / "found"
    asked = config(video, out, reference=reference, field_of_view=field_of_view)
    (report,) = annotate(asked)
    assert "orbit.mp4" in table([report])
    (entry,) = open_entries((str(out),), (64, 64))
    episode = entry.read()
    assert episode.caption == "a green room with tiles"
    start = round(episode.meta["start"] * truth.fps)
    true = truth.c2w[start : start + len(episode.c2w)].astype(float)
    found = episode.c2w.astype(float)
    assert len(found) >= 0.8 * FRAMES
    move = align_positions(found[:, :3, 3], true[:, :3, 3])
    assert move.scale == pytest.approx(1.0, rel=0.02)  # metres, from the reference
    extent = np.linalg.norm(np.ptp(true[:, :3, 3], axis=0))
    assert np.linalg.norm(move.points(found[:, :3, 3]) - true[:, :3, 3], axis=1).mean() < 0.04 * extent
    turn = mean_rotation(true[:, :3, :3] @ found[:, :3, :3].transpose(0, 2, 1))
    assert np.degrees(angles(turn @ found[:, :3, :3], true[:, :3, :3])).mean() < 1.0
    assert episode.intrinsics[0, 0] == pytest.approx(truth.intrinsics[0, 0] * 64 / SIZE, rel=1e-3)
    written = (out / "report.json").stat().st_mtime_ns
    annotate(asked)
    assert (out / "report.json").stat().st_mtime_ns == written  # nothing changed: nothing done


def test_a_camera_that_only_turns_is_left_out(tmp_path: Path) -> None:
    from sanawm_env.data import render_episode

    truth = render_episode("val", 5, kind="yaw", frames=25, size=128)
    video = tmp_path / "yaw.mp4"
    encode_video(video, truth.frames, truth.fps, crf=17, colour="yuv420p")
    (report,) = annotate(config(video, tmp_path / "found", scene_depth=3.0))
    assert report["kept"] == 0
    assert all(piece["reasons"] for piece in report["pieces"])
    assert not list_episodes(tmp_path / "found")


def test_a_broken_video_is_refused_by_name_and_the_report_says_so(clip, tmp_path: Path) -> None:
    video = tmp_path / "broken.mp4"
    video.write_bytes(clip[0].read_bytes()[:3000])
    (report,) = annotate(config(video, tmp_path / "found", scene_depth=3.0))
    assert "broken.mp4" in report["refused"]
    saved = json.loads((tmp_path / "found" / "report.json").read_text())
    assert saved["videos"] == [report]
    with pytest.raises(EpisodeError, match="found none"):
        open_entries((str(tmp_path / "found"),), (64, 64))
