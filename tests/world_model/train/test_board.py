"""A run shown in TensorBoard: its curves, its held-out table, its pictures; and nothing asked of whoever has none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.world_model.train.test_loop import run
from world_model.errors import BackendError, InputError
from world_model.train.board import open_board, table


def test_curves_table_and_pictures_are_written_and_resumed(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="reads events")
    run(tmp_path, steps=10, board="tensorboard")
    run(tmp_path, steps=20, board="tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 15, 20]
    assert [event.step for event in events.Scalars("held_out/weight")] == [10, 20]
    assert [event.step for event in events.Images("grey")] == [10, 20]
    assert events.Images("grey")[0].width == 6
    (text, *_) = events.Tensors("held_out/text_summary")
    assert b"| weight | " in text.tensor_proto.string_val[0]


def test_it_is_missing_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    open_board("", tmp_path, 0).held_out(1, {"x": 1.0}, {"y": np.zeros((2, 2, 3), np.uint8)})
    assert not list(tmp_path.iterdir())
    with pytest.raises(BackendError, match=r"sanawm-env\[board\]"):
        open_board("tensorboard", tmp_path, 0)
    with pytest.raises(InputError, match="board: expected one of"):
        run(tmp_path, board="paper")


def test_figures_of_one_kind_share_a_row() -> None:
    made = table({"psnr_model_1s": 20.5, "psnr_model_2s": 19.0, "psnr_repeat_1s": 18.0, "fit": 0.25})
    assert made.splitlines() == [
        "| | 1s | 2s |  |",
        "|---|---:|---:|---:|",
        "| psnr_model | 20.500 | 19.000 |  |",
        "| psnr_repeat | 18.000 |  |  |",
        "| fit |  |  | 0.250 |",
    ]
