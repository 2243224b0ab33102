"""Structure from motion over the pictures of one shot, by pycolmap (extra `annotate`).

Features are found and matched once a shot; the mapper then runs on one chunk after another. A camera that hardly turns
does not show its focal length: near and far and a wider lens look alike. There the focal length stays as guessed.

Legend: K frames of a chunk, H W pixels of the working picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from world_model.train.data.annotate_join import Chunk, angles
from world_model.train.data.source import optional_module

PEAK = 0.004  # of SIFT; below COLMAP's own 0.0067, for rooms with bare walls
NEIGHBOURS = 6  # frames matched with each, and further ones at doubling distances
TURN_SHOWS_FOCAL = np.radians(15)  # what a camera must turn for its focal length to be estimated
FEWEST = 8  # frames of a model worth keeping
ENOUGH = 0.8  # share of the frames that a model with an estimated focal length must hold
MODELS = 4  # tries a chunk
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Pictures of one shot, matched."""

    folder: Path  # holds database.db and images/
    size: tuple[int, int]  # (H, W)
    threads: int


def load() -> ModuleType:
    """pycolmap, silent but for errors. Raises BackendError where it is missing."""
    colmap = optional_module("pycolmap", "annotate")
    colmap.logging.minloglevel = int(colmap.logging.FATAL)
    return colmap


def name_of(frame: int) -> str:
    return f"{frame:07d}.png"


def write_picture(folder: Path, frame: int, grey: np.ndarray) -> None:
    """A working picture uint8 (H, W) into the folder of a shot-to-be."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    load().Bitmap.from_array(grey).write(str(folder / "images" / name_of(frame)))


def match(folder: Path, frames: Sequence[int], size: tuple[int, int], focal: float, threads: int) -> Shot:
    """Find and match features in the pictures of `frames`; `focal` in working pixels is where the search begins."""
    colmap = load()
    database = folder / "database.db"
    database.unlink(missing_ok=True)
    reader = colmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE"
    reader.camera_params = f"{focal},{size[1] / 2},{size[0] / 2}"
    extraction = colmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.sift.peak_threshold = PEAK
    colmap.set_random_seed(SEED)
    colmap.extract_features(
        database,
        folder / "images",
        [name_of(frame) for frame in frames],
        camera_mode=colmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
    )
    matching, pairing = colmap.FeatureMatchingOptions(), colmap.SequentialPairingOptions()
    matching.num_threads = threads
    pairing.overlap, pairing.quadratic_overlap = NEIGHBOURS, True
    verification = colmap.TwoViewGeometryOptions()
    verification.ransac.max_error = 2.0
    verification.ransac.random_seed = SEED
    colmap.match_sequential(database, matching, pairing, verification)
    return Shot(folder=folder, size=size, threads=threads)


def map_chunk(shot: Shot, frames: Sequence[int], focal: float, *, hold: bool) -> Chunk | None:
    """The path through `frames`; None where fewer than `FEWEST` of them fit together.

    hold: the focal length (working pixels) is known. Otherwise it is estimated where the camera turns enough, and
    else kept: such a chunk's `focal` is `focal` itself.
    """
    held = _map(shot, frames, focal, refine=False)
    fits = held is not None and len(held.frames) >= ENOUGH * len(frames)
    # Free to choose, a straight walk bends itself to fit a wrong lens: so turning is judged with the lens held.
    if hold or (fits and held.turned < TURN_SHOWS_FOCAL):
        return held
    free = _map(shot, frames, focal, refine=True)
    if free is not None and free.turned >= TURN_SHOWS_FOCAL and len(free.frames) >= ENOUGH * len(frames):
        return free
    return held


def _map(shot: Shot, frames: Sequence[int], focal: float, *, refine: bool) -> Chunk | None:
    colmap = load()
    with colmap.Database.open(shot.folder / "database.db") as database:
        (camera,) = database.read_all_cameras()
        camera.params = [focal, shot.size[1] / 2, shot.size[0] / 2]
        database.update_camera(camera)
    options = colmap.IncrementalPipelineOptions()
    options.image_names = [name_of(frame) for frame in frames]
    options.num_threads, options.random_seed, options.extract_colors = shot.threads, SEED, False
    options.max_num_models, options.min_model_size = MODELS, FEWEST
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = refine
    # COLMAP's own stopping rules ask for digits that video of small steps does not have: ten times the time.
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_function_tolerance = options.ba_local_function_tolerance = 1e-5
    options.ba_global_max_num_iterations, options.ba_global_max_refinements = 20, 2
    options.mapper.init_min_num_inliers, options.mapper.abs_pose_min_num_inliers = 40, 15
    options.mapper.init_min_tri_angle = 4.0  # small steps through rooms
    options.mapper.init_max_forward_motion = 1.0  # walking ahead is what most footage does
    out = shot.folder / "models"
    out.mkdir(exist_ok=True)
    models = colmap.incremental_mapping(shot.folder / "database.db", shot.folder / "images", out, options)
    kept = [model for model in models.values() if model.num_reg_images() >= FEWEST]
    return _chunk(max(kept, key=lambda model: model.num_reg_images())) if kept else None


def _chunk(model: Any) -> Chunk | None:
    """A pycolmap.Reconstruction as values; None where it holds no point before its cameras."""
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    identities = {point: place for place, point in enumerate(model.points3D)}
    points = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    c2w, seen, point, pixel, focal = [], [], [], [], 0.0
    for image in images:
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        c2w.append(np.linalg.inv(pose))
        focal = float(image.camera.focal_length)
        found = [(i, p) for i, p in enumerate(image.points2D) if p.has_point3D()]
        seen.append(np.array([(int(Path(image.name).stem), i) for i, _ in found], np.int64).reshape(-1, 2))
        point.append(np.array([identities[p.point3D_id] for _, p in found], np.int64))
        centre = [image.camera.principal_point_x, image.camera.principal_point_y]
        pixel.append(np.array([p.xy - centre for _, p in found]).reshape(-1, 2))
    poses = np.array(c2w)
    depths = [(points[p] - pose[:3, 3]) @ pose[:3, 2] for p, pose in zip(point, poses, strict=True)]
    depth = np.concatenate(depths)
    ahead = depth > 0
    if not ahead.any():
        return None
    rotations = poses[:, :3, :3]
    return Chunk(
        frames=np.array([int(Path(image.name).stem) for image in images]),
        c2w=poses,
        focal=focal,
        turned=float(angles(rotations[:, None], rotations[None]).max()),
        seen=np.concatenate(seen)[ahead],
        depth=depth[ahead],
        point=np.concatenate(point)[ahead],
        pixel=np.concatenate(pixel)[ahead],
        points=points,
        error=float(np.median([p.error for p in model.points3D.values()])),
    )
