"""What training draws from episodes: raw clips through the cache, and packed latents."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from world_model.config import TokenizerConfig
from world_model.errors import CheckpointError, EpisodeError, InputError
from world_model.train.__main__ import from_json, main
from world_model.train.data.clips import cached_frames, open_clips, to_video
from world_model.train.data.episode import Episode, list_episodes, read_episode, write_episode
from world_model.train.data.latents import LatentsRun, encode_episode, fingerprint, open_packed, train
from world_model.train.data.source import Entry, open_entries
from world_model.train.decoder import DecoderRun
from world_model.train.loop import RunConfig, generator
from world_model.train.tokenizer import TokenizerRun, load_tokenizer, save_tokenizer, start_linear
from world_model.vae import VideoTokenizer

pytest.importorskip("av", reason="videos are written by av")

T, H, W = 29, 32, 32
CFG = TokenizerConfig(height=H, width=W, latent_channels=4, base_width=8)


def pose(angle: float, forward: float) -> np.ndarray:
    c2w = np.eye(4, dtype=np.float32)
    c2w[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    c2w[2, 3] = forward
    return c2w


def make_episode(seed: int, length: int = T) -> Episode:
    """Sliding stripes, seen from a camera that turns as it goes."""
    x = np.arange(W)[None, :] + 3 * np.arange(length)[:, None] + 5 * seed
    stripes = 128 + 100 * np.sin(0.4 * x)
    frames = np.broadcast_to(stripes[:, None, :, None], (length, H, W, 3)).astype(np.uint8)
    return Episode(
        frames=frames,
        c2w=np.stack([pose(0.02 * t, 0.05 * t) for t in range(length)]),
        intrinsics=np.tile(np.array([20 + seed, 20, W / 2, H / 2], np.float32), (length, 1)),
        caption=f"room {seed}",
        fps=16.0,
        meta={"split": "train", "seed": seed},
    )


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "train"
    for seed in range(3):
        write_episode(root / f"{seed:06d}", make_episode(seed))
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, episodes) -> Path:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(CFG)
    start_linear(tokenizer, open_clips((str(episodes),), str(episodes.parent / "cache"), (H, W)), draws=8)
    torch.nn.init.normal_(tokenizer.encoder.head.weight[: CFG.latent_channels], std=0.05)  # so that it looks back
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture
def packed(tmp_path, episodes, tokenizer) -> Path:
    train(LatentsRun(tokenizer=str(tokenizer), data=(str(episodes),), out=str(tmp_path / "latents"), start_every=2))
    return tmp_path / "latents"


def entries(root: Path) -> list[Entry]:
    return open_entries((str(root),), (H, W))


def test_frames_are_decoded_once(episodes, tmp_path):
    entry = entries(episodes)[0]
    frames = cached_frames(entry, tmp_path)
    np.testing.assert_array_equal(frames, read_episode(list_episodes(episodes)[0]).frames)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    cached_frames(entry, tmp_path)
    assert path.stat().st_mtime_ns == before


def test_a_changed_episode_is_decoded_anew(tmp_path):
    folder = tmp_path / "train"
    write_episode(folder / "000000", make_episode(0))
    first = cached_frames(entries(folder)[0], tmp_path / "cache")
    write_episode(folder / "000000", make_episode(9))
    assert not np.array_equal(cached_frames(entries(folder)[0], tmp_path / "cache"), first)


def test_clips_are_consecutive_frames_and_repeatable(episodes, tmp_path):
    clips = open_clips((str(episodes),), str(tmp_path), (H, W))
    drawn, ids = clips.sample(5, 9, generator(0, 3, "x"))
    again, _ = clips.sample(5, 9, generator(0, 3, "x"))
    assert torch.equal(drawn, again)
    for clip, name in zip(drawn, ids, strict=True):
        folder, start = name.split("@")
        frames = read_episode(Path(folder)).frames[int(start) : int(start) + 9]
        np.testing.assert_array_equal(clip.numpy(), frames)
    video = to_video(drawn)
    assert video.shape == (5, 3, 9, H, W)
    assert video.min() >= -1
    assert video.max() <= 1


def test_clips_that_cannot_be_drawn(episodes, tmp_path):
    clips = open_clips((str(episodes),), str(tmp_path), (H, W))
    with pytest.raises(InputError, match=f"clip of {T + 1} frames"):
        clips.sample(1, T + 1, generator(0, 0, "x"))
    with pytest.raises(EpisodeError, match=r"expected frames of \(64, 64, 3\)"):
        open_clips((str(episodes),), str(tmp_path), (64, 64))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EpisodeError, match="found none"):
        open_clips((str(tmp_path / "nothing"),), str(tmp_path), (H, W))


@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_window_is_what_its_frames_alone_encode_to(episodes, packed, tokenizer, start):
    data = open_packed(packed)
    window = data.windows([(1, start)], 4)
    episode = read_episode(list_episodes(episodes)[1])
    frames = torch.from_numpy(episode.frames[None, 4 * start : 4 * start + 13])
    alone = load_tokenizer(tokenizer).encode(to_video(frames)).detach()
    torch.testing.assert_close(window.latents, alone, rtol=1e-2, atol=1e-2)  # stored in bfloat16
    assert window.c2w.shape == (1, 13, 4, 4)
    torch.testing.assert_close(window.c2w[0, 0], torch.eye(4))
    moved = np.linalg.inv(episode.c2w[4 * start]) @ episode.c2w[4 * start + 12]
    np.testing.assert_allclose(window.c2w[0, -1].numpy(), moved, atol=1e-5)
    assert window.intrinsics.tolist() == [[21, 20, W / 2, H / 2]]
    assert window.captions == ("room 1",)
    assert window.ids == (f"train/000001@{start}",)


def test_starts_matter(packed):
    """The first two latents of a window inside an episode are not those of the episode."""
    data = open_packed(packed)
    episode = data.episodes[0]["latents"].float()
    window = data.windows([(0, 2)], 4).latents[0].movedim(1, 0)
    gap = (window - episode[2:6]).abs().amax((1, 2, 3))
    assert (gap[:2] > 1e-2).all()
    assert (gap[2:] == 0).all()


def test_sampling_covers_all_places_and_repeats(packed):
    data = open_packed(packed)
    assert data.places(4) == [(e, s) for e in range(3) for s in (0, 2, 4)]
    drawn = data.sample(64, 4, generator(0, 0, "x"))
    assert len(set(drawn.ids)) == 9
    assert torch.equal(drawn.latents, data.sample(64, 4, generator(0, 0, "x")).latents)
    with pytest.raises(InputError, match="windows of 99 latents"):
        data.sample(1, 99, generator(0, 0, "x"))
    with pytest.raises(InputError, match="multiple of 2"):
        data.windows([(0, 1)], 4)


def test_encoding_again_adds_what_is_new(episodes, packed, tokenizer, tmp_path):
    more = tmp_path / "more" / "train"
    write_episode(more / "000007", make_episode(7))
    before = (packed / "latents-00000.safetensors").stat().st_mtime_ns
    train(LatentsRun(tokenizer=str(tokenizer), data=(str(episodes), str(more)), out=str(packed), start_every=2))
    data = open_packed(packed)
    assert data.ids == ("train/000000", "train/000001", "train/000002", "train/000007")
    assert (packed / "latents-00000.safetensors").stat().st_mtime_ns == before


def test_augmenting_adds_the_variants_and_encodes_nothing_twice(episodes, packed, tokenizer):
    before = (packed / "latents-00000.safetensors").stat().st_mtime_ns
    run = LatentsRun(tokenizer=str(tokenizer), data=(str(episodes),), out=str(packed), start_every=2, augment=True)
    train(run)
    train(run)
    data = open_packed(packed)
    assert len(data.ids) == len(set(data.ids)) == 4 * len(list_episodes(episodes))
    assert (packed / "latents-00000.safetensors").stat().st_mtime_ns == before
    mirror = data.episodes[data.ids.index("train/000000~mirrored")]
    np.testing.assert_allclose(mirror["c2w"][:, 0, 2], -data.episodes[0]["c2w"][:, 0, 2])


def test_namesakes_and_zooms_are_refused_by_name(episodes, tokenizer, tmp_path):
    run = LatentsRun(tokenizer=str(tokenizer), data=(str(episodes), str(episodes)), out=str(tmp_path / "out"))
    with pytest.raises(EpisodeError, match="got train/000000 twice"):
        train(run)
    zoom = make_episode(0)
    zoom.intrinsics[5:, :2] *= 2
    write_episode(tmp_path / "zoom" / "000000", zoom)
    with pytest.raises(EpisodeError, match=r"zoom/000000: intrinsics: expected the same"):
        train(LatentsRun(tokenizer=str(tokenizer), data=(str(tmp_path / "zoom"),), out=str(tmp_path / "out")))


def test_latents_of_another_tokenizer_are_refused(episodes, packed, tmp_path):
    torch.manual_seed(1)
    save_tokenizer(VideoTokenizer(CFG), tmp_path / "other")
    with pytest.raises(CheckpointError, match="expected latents with tokenizer"):
        train(LatentsRun(tokenizer=str(tmp_path / "other"), data=(str(episodes),), out=str(packed), start_every=2))


def test_damaged_latents_are_named(packed):
    part = packed / "latents-00000.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"latents-00000.safetensors: expected sha256"):
        open_packed(packed)
    part.unlink()
    with pytest.raises(CheckpointError, match="got no file"):
        open_packed(packed)


def test_encoding_again_mends_damage_and_follows_changes(episodes, tokenizer, tmp_path, caplog):
    data, packed = tmp_path / "train", tmp_path / "latents"
    for index in range(3):
        write_episode(data / f"{index:06d}", make_episode(index))
    run = LatentsRun(tokenizer=str(tokenizer), data=(str(data),), out=str(packed), start_every=2)
    train(run)
    whole = open_packed(packed)
    part = packed / "latents-00000.safetensors"
    part.unlink()  # not cut in place: `whole` is mapped from it
    part.write_bytes(b"cut off")
    train(run)
    assert "latents-00000.safetensors: damaged or missing: its 3 episodes" in caplog.text
    torch.testing.assert_close(open_packed(packed).episodes, whole.episodes)
    write_episode(data / "000001", make_episode(9))
    train(run)
    assert "changed since, encoded again: train/000001" in caplog.text
    after = open_packed(packed)
    assert sorted(after.ids) == sorted(whole.ids)
    changed, before = after.episodes[after.ids.index("train/000001")], whole.episodes[1]
    assert not torch.equal(changed["latents"], before["latents"])


def test_a_zoom_has_no_packed_form(tokenizer):
    episode = make_episode(0)
    episode.intrinsics[5:, :2] *= 2
    with pytest.raises(EpisodeError, match="intrinsics: expected the same"):
        encode_episode(load_tokenizer(tokenizer), episode, 2)


def run_file(path: Path, episodes: Path, **changes: object) -> Path:
    """A tokenizer run of two steps, as JSON."""
    values = {
        "run": {"out": str(path / "run"), "steps": 2, "batch": 2, "log_every": 1, "validate_minutes": 60},
        "tokenizer": {"height": H, "width": W, "latent_channels": 4, "base_width": 8},
        "data": [str(episodes)],
        "validation": [str(episodes)],
        "cache": str(path / "cache"),
        "validation_clips": 4,
    }
    (path / "run.json").write_text(json.dumps(values | changes))
    return path / "run.json"


def test_the_command_trains_a_tokenizer_and_goes_on_from_its_weights(episodes, tmp_path):
    main(["tokenizer", "--config", str(run_file(tmp_path, episodes))])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_psnr"] > 5
    exported = load_tokenizer(tmp_path / "run" / "export")
    assert exported.latents_std.min() > 0
    weights = tmp_path / "run" / "export" / "tokenizer.safetensors"
    again = {"out": str(tmp_path / "again"), "steps": 1, "batch": 2, "lr": 1e-9, "init": str(weights)}
    main(["tokenizer", "--config", str(run_file(tmp_path, episodes, run=again))])
    continued = load_tokenizer(tmp_path / "again" / "export").state_dict()
    for name, value in exported.state_dict().items():
        if not name.startswith("latents_"):  # measured again, on the same data
            torch.testing.assert_close(continued[name], value, rtol=0, atol=1e-6)


def test_decoder_only_keeps_what_latents_depend_on(episodes, tokenizer, tmp_path):
    run = {"out": str(tmp_path / "run"), "steps": 2, "batch": 2, "init": str(tokenizer)}
    main(["tokenizer", "--config", str(run_file(tmp_path, episodes, run=run, decoder_only=True))])
    before, after = load_tokenizer(tokenizer), load_tokenizer(tmp_path / "run" / "export")
    assert fingerprint(after) == fingerprint(before)
    assert not torch.equal(after.decoder.layers[0].weight, before.decoder.layers[0].weight)


def test_flags_override_the_file(episodes, tmp_path):
    pytest.importorskip("tyro", reason="parses flags")
    path = run_file(tmp_path, episodes)
    main(["tokenizer", "--config", str(path), "--run.steps", "1", "--run.out", str(tmp_path / "flags")])
    lines = (tmp_path / "flags" / "log.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epochs": 3}, "epochs"), ({"run": {}}, "'out'"), ({"latents": 1}, "latents >= 2"), ({"run": 3}, "got 3")],
)
def test_wrong_files_are_named(episodes, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        from_json(TokenizerRun, run_file(tmp_path, episodes, **changes))


def test_keys_left_out_keep_the_defaults_of_that_run(tmp_path):
    given = {"run": {"out": "o", "steps": 1}, "world": "", "data": "", "validation": "", "episodes": [], "cache": ""}
    (tmp_path / "run.json").write_text(json.dumps({**given, "judge": {"width": 48}}))
    default = DecoderRun(**{**given, "run": RunConfig(out="o", steps=1), "episodes": ()})
    found = from_json(DecoderRun, tmp_path / "run.json")
    assert found == dataclasses.replace(default, judge=dataclasses.replace(default.judge, width=48))


def test_an_exported_tokenizer_that_is_incomplete_is_refused(tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match="expected a tokenizer's configuration"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointError, match="found neither"):
        load_tokenizer(tmp_path)
