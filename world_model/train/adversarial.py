"""Sharpening: the world model goes on learning the truth, and at its last step to look true to a judge as well.

Squared error makes the mean of all pictures that could follow, and the mean is blurred. A judge (train/judge.py) that
learns beside the model finds blur at once and pulls towards pictures that could be true. No teacher is needed.

Shapes: B clips, C channels, T latents, Y, X cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from world_model.clips import select
from world_model.errors import InputError
from world_model.train.flow import batch_at, prepare
from world_model.train.flow_model import FlowModel, FlowRun
from world_model.train.judge import Judge, JudgeConfig, judge_clips, load_judge, pull_beside, save_judge
from world_model.train.loop import Batch, fit
from world_model.train.losses import some_without_words, squared_error, streamed
from world_model.train.outcome import measure_and_export


@dataclass(frozen=True, kw_only=True)
class AdversarialRun(FlowRun):
    """`python -m world_model.train adversarial`: a streaming flow run with own steps, and a judge. run.init: the model
    to sharpen."""

    judge: JudgeConfig = field(default_factory=JudgeConfig)
    judge_init: str = ""  # folder with a judge to begin with: the export of `judge`, or of an adversarial run
    judge_lr: float = 1.0  # as a share of run.lr
    pull: float = 0.3  # of the judge on the model: the length of its gradient beside that of the squared error
    pull_full: int = 100  # steps until it pulls so much, for it knows nothing at first

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "streaming" or not 0 < self.own_steps <= 1 or not self.tokenizer or self.lora_rank:
            raise InputError(
                "adversarial: expected mode 'streaming', own_steps in (0, 1], a tokenizer and lora_rank 0, "
                f"got {self.mode!r}, {self.own_steps}, {self.tokenizer!r} and {self.lora_rank}"
            )
        if not self.run.init:
            raise InputError("adversarial: expected run.init, the model to sharpen, got none")
        if self.judge_lr <= 0 or self.pull < 0 or self.pull_full < 1:
            raise InputError(
                "adversarial: expected judge_lr > 0, pull >= 0 and pull_full >= 1, "
                f"got {self.judge_lr}, {self.pull} and {self.pull_full}"
            )


class Duel(nn.Module):
    """What learns: the world model, and the judge of what it makes."""

    def __init__(self, player: FlowModel, judge: Judge) -> None:
        super().__init__()
        self.player, self.judge = player, judge


def train(config: AdversarialRun) -> None:
    """Train, and export the model for `WorldModel.from_pretrained`."""
    player, tokenizer, data = prepare(config)
    duel = Duel(player, Judge(player.channel_weight.sqrt(), config.judge))
    if config.judge_init:
        load_judge(duel.judge, Path(config.judge_init))

    def sample_batch(step: int) -> Batch:
        batch = batch_at(config, player, data, step)
        pull = torch.tensor(config.pull * min(1.0, step / config.pull_full))
        return Batch(tensors={**batch.tensors, "pull": pull}, ids=batch.ids)

    def loss(module: nn.Module, tensors: Mapping[str, Tensor], draw: torch.Generator):
        assert isinstance(module, Duel)
        return duel_loss(module, tensors, draw, config)

    validate, export_player = measure_and_export(config, tokenizer, duel, "player")

    def export(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, Duel)
        export_player(module, folder)
        save_judge(module.judge, folder)

    scales = {"judge.": config.judge_lr}
    fit(config.run, duel, loss, sample_batch, validate=validate, export=export, lr_scales=scales)


def duel_loss(
    duel: Duel, tensors: Mapping[str, Tensor], draw: torch.Generator, config: AdversarialRun
) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's squared error and the judge's pull on it, and the judge's own loss on the same clips.

    The judge sees the clips at the last of the model's steps, whose answers are what is played. Its pull is measured
    at those answers: there its gradient is given `pull` times the length of the squared error's, so that neither's
    scale matters. The two share no weight, so one backward pass serves both. Logged: the share of clips that were
    judged, and of all clips' cells the share in which the judge was fooled.
    """
    clips = some_without_words(duel.player, tensors, draw, config.caption_dropout)
    made = streamed(duel.player, clips, tensors["rollout"], draw, config)
    error, logs = squared_error(duel.player, made, tensors["rollout"])
    last = (made.time == duel.player.config.steps[-2]).all(1).nonzero()[:, 0]
    logs["judged"] = error.new_tensor(len(last) / len(made.time))
    if not len(last):  # every worker's judge has gradients, or they could not be averaged
        return error + 0 * sum(weight.sum() for weight in duel.judge.parameters()), logs | {
            "fooled": 0 * error.detach()
        }
    true = select(made.clips, last).latents
    played = torch.cat([true[:, :, :1], made.data()[last].to(true.dtype)], 2)
    verdict = judge_clips(duel.judge, true, played, draw, config.judge)
    pull = pull_beside(error, made.velocity, played, verdict.towards, tensors["pull"])
    return error + verdict.loss + pull, logs | {"fooled": verdict.fooled * logs["judged"]}
