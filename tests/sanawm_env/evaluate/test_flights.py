"""Flights for the camera's control: what is commanded, what is flown, and the true depth along it."""

import numpy as np
import pytest

from sanawm_env.camera_env import CameraEnv, Settings
from sanawm_env.evaluate.baselines import StartPictureEngine
from sanawm_env.evaluate.camera import camera_error, recover_motion
from sanawm_env.evaluate.flights import PATHS, STEPS, commands, fly, true_depth
from sanawm_env.starts import find_bank
from world_model.presets import nano


def test_commands_are_the_scripted_speeds() -> None:
    yaw = commands("yaw", 0, 4, 16.0)
    assert yaw.shape == (STEPS, 6)
    assert np.abs(yaw[:, 4]) == pytest.approx(30 / 45)  # deg/s of the fastest
    assert not np.delete(yaw, 4, axis=1).any()
    assert commands("forward", 0, 4, 16.0)[:, 2] == pytest.approx(0.6)
    for kind in PATHS:
        assert np.abs(commands(kind, 1, 4, 16.0)).max() <= 1


def test_the_rotation_warp_turns_as_told_and_does_not_move() -> None:
    start = find_bank(None, None)[0]
    env = CameraEnv(StartPictureEngine("warp", nano()), Settings(bank=(start,), task="none", info_frames=True))
    flight = fly(env, start.name, commands("random", 3, 4, 16.0)[:2], 16.0)
    assert flight.frames.shape == (9, 128, 128, 3)
    assert flight.twists.shape == (8, 6)
    assert flight.poses[-1] == pytest.approx(env.episode.pose, abs=1e-9)
    depth = np.full(flight.frames.shape[:3], 3.0, np.float32)
    error = camera_error(recover_motion(flight.frames, depth, flight.intrinsics, 16.0), flight.twists)
    assert error.turn_gain == pytest.approx(1, abs=0.15)
    assert abs(error.move_gain) < 0.4


def test_true_depth_meets_the_goal() -> None:
    start = find_bank(None, None)[0]
    env = CameraEnv(StartPictureEngine("repeat", nano()), Settings(bank=(start,), task="none", info_frames=True))
    flight = fly(env, start.name, commands("forward", 0, 4, 16.0)[:2], 16.0)
    depth = true_depth(start, flight)
    assert depth.shape == flight.frames.shape[:3]
    for frame in (0, 8):  # the start frame, and 0.3 m later
        x, y, z = (np.linalg.inv(flight.poses[frame]) @ [*start.goal, 1])[:3]
        fx, fy, cx, cy = flight.intrinsics
        seen = depth[frame, int(fy * y / z + cy), int(fx * x / z + cx)]
        assert z - 0.45 <= seen <= z + 0.05  # its surface, nearer than its centre
