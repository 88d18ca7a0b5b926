"""The training loop: one for every task, full or LoRA, one process or many."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import get_scheduler

from training.atomic import replace_folder
from training.average import WeightAverage
from training.batches import Example, collate, epoch_batches, shares
from training.calibration import Floats
from training.config import TrainConfig
from training.engine import Engine, Limits
from training.errors import TrainingError
from training.model import decay_groups
from training.network import Network
from training.progress import Reporter
from training.run_folder import RunFolder
from training.task import Task

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands; saved with every state, so that a resumed run knows all an unbroken one would."""

    step: int = 0
    epoch: int = 0
    best: tuple[float, float] = (-np.inf, -np.inf)
    """The metric to choose by, and minus the loss, of the best epoch so far."""
    best_epoch: int = -1
    """Whose weights are kept: the last of those that cannot be told from the best."""
    waited: int = 0
    """Epochs in a row that were worse than the best; `early_stopping_threshold` says what worse is."""
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """Figures of the evaluation rows after each epoch."""

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's saved state."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From Accelerate's saved state."""
        for name, value in state.items():
            setattr(self, name, tuple(value) if name == "best" else value)


class Loop:
    """Takes a network from its first step to its best epoch."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, task: Task, engine: Engine, network: Network
    ) -> None:
        """Prepare network and optimiser for the devices; every `auto` of the config must be resolved."""
        self.config, self.accelerator, self.task, self.engine = config, accelerator, task, engine
        groups = decay_groups(
            network,
            config.weight_decay,
            cast(float, config.learning_rate) * config.learning_rate_multiplier,
            cast(float, config.head_learning_rate) * config.learning_rate_multiplier,
        )
        optimizer = torch.optim.AdamW(groups, fused=accelerator.device.type in ("cpu", "cuda"))
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        on_cpu = accelerator.device.type == "cpu"
        self._limits = Limits(
            max_tokens=cast(int, config.max_batch_tokens), max_waste=1.25 if on_cpu else 1e9, max_items=1_000_000
        )
        self._pad = int(engine.tokenizer.pad_token_id)
        self.progress, self.average = Progress(), WeightAverage(self._network(), config.average_decay)
        accelerator.register_for_checkpointing(self.progress, self.average)

    def run(self, train: Sequence[Example], held: Sequence[Example], folder: RunFolder, reporter: Reporter) -> None:
        """Train until the epochs or the patience end, then put the best epoch's weights back.

        Raises:
            TrainingError: the loss is not finite.
        """
        per_epoch = -(-len(train) // cast(int, self.config.batch_size))
        epochs = cast(int, self.config.epochs)
        total = per_epoch * epochs
        self.scheduler = get_scheduler(
            self.config.schedule if self.config.schedule != "constant" else "constant_with_warmup",
            self.optimizer,
            num_warmup_steps=round(total * self.config.warmup_ratio),
            num_training_steps=total,
        )
        self.accelerator.register_for_checkpointing(self.scheduler)
        self._resume(folder)
        reporter.start(self.progress.step, total)
        for epoch in range(self.progress.epoch, epochs):
            if self.progress.done:
                break
            self._train_epoch(epoch, self.task.drawn(train, epoch), folder, reporter)
            self._finish_epoch(epoch, held, folder, reporter)
        reporter.stop()
        self._load_best(folder)

    def _train_epoch(self, epoch: int, train: Sequence[Example], folder: RunFolder, reporter: Reporter) -> None:
        lengths = [example.longest for example in train]
        batches = epoch_batches(lengths, cast(int, self.config.batch_size), self.config.seed, epoch)
        done = self.progress.step - epoch * len(batches)
        saved = time.monotonic()
        self.model.train()
        for batch in batches[done:]:
            reporter.step(self.progress.step + 1, self._step([train[i] for i in batch]), self.accelerator)
            self.progress.step += 1
            if self._agree(time.monotonic() - saved > self.config.save_seconds):
                self._save(folder, reporter)
                saved = time.monotonic()

    def _step(self, examples: Sequence[Example]) -> Tensor:
        """One optimiser step.

        The gradient is that of the weighted mean over all the examples, however they are divided.

        Returns:
            This process's part of (loss, hits, rows), the loss already divided by the whole weight.
        """
        world = self.accelerator.num_processes
        passes = shares(examples, self._limits, world)[self.accelerator.process_index]
        whole = sum(example.weight for example in examples)
        seen = torch.zeros(3, device=self.accelerator.device)
        for number, part in enumerate(passes):
            last = number == len(passes) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                # An empty pass still takes part, with a weight of nothing: the other processes wait for it.
                batch = collate(part or examples[:1], self._pad, self.accelerator.device)
                weights = batch.weights if part else batch.weights * 0
                logits = self.model(*batch.inputs)
                loss = (self.task.loss(logits, batch) * weights).sum() / whole
                self.accelerator.backward(loss * world)  # DDP averages over processes
            if part:
                hits = self.task.hits(logits.detach(), batch).sum()
                seen += torch.stack([loss.detach(), hits, hits.new_tensor(float(len(part)))])
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.average.update()
        return seen

    def _finish_epoch(self, epoch: int, held: Sequence[Example], folder: RunFolder, reporter: Reporter) -> None:
        reporter.flush(self.accelerator)
        with self.average.applied():
            self._judge(self.assess(held), len(held), epoch, folder, reporter)
        self._save(folder, reporter)

    def _judge(self, figures: dict[str, float], rows: int, epoch: int, folder: RunFolder, reporter: Reporter) -> None:
        """Keep the averaged weights if none were better so far, and see whether to go on."""
        if not np.isfinite(figures["loss"]):
            raise TrainingError(
                f"the evaluation loss is {figures['loss']} after epoch {epoch + 1}; lower learning_rate"
            )
        progress = self.progress
        metric = -figures["loss"] if self.config.metric == "loss" else figures[self.config.metric]
        score = (metric, -figures["loss"])
        # On few evaluation rows the best epoch is mostly luck: of those that cannot be told from it, the last one
        # is kept, which has seen more of the schedule.
        kept = score > progress.best or metric >= progress.best[0] - self._standard_error(progress.best[0], rows)
        threshold = self.config.early_stopping_threshold
        better = score > (progress.best[0] + threshold, progress.best[1]) or (kept and not threshold)
        progress.waited = 0 if better else progress.waited + 1
        progress.best = max(progress.best, score)
        if kept:
            progress.best_epoch = epoch
            self._keep_best(folder, epoch)
        progress.epoch = epoch + 1
        progress.history.append({"epoch": float(epoch + 1), "step": float(progress.step), **figures})
        patience = self.config.early_stopping_patience
        if patience is not None and progress.waited >= patience and progress.epoch < cast(int, self.config.epochs):
            progress.done = True
            log.info("no better %s for %d epochs: stopping early", self.config.metric, patience)
        reporter.evaluated(progress.step, progress.epoch, figures)

    def _standard_error(self, share: float, rows: int) -> float:
        """How far a share measured on `rows` rows lies from the truth; the loss is not a share."""
        return 0.0 if self.config.metric == "loss" else float(np.sqrt(max(share * (1 - share), 0) / rows))

    def assess(self, held: Sequence[Example]) -> dict[str, float]:
        """Score rows with the network as it stands, each process its share, and measure them in every process."""
        return self.task.assess(self.score(held), held)

    def score(self, examples: Sequence[Example]) -> list[Floats]:
        """Logits (items, width) of each example by the network as it stands, the same in every process."""
        self.model.eval()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.accelerator.distributed_type == DistributedType.FSDP:
            world, rank = 1, 0  # sharded models run in step: every process scores everything
        items = [item for example in examples for item in example.items]
        mine = list(range(rank, len(items), world))
        rows = self.engine.score([items[i] for i in mine])
        if world > 1:
            out: list[Any] = [None] * len(items)
            for position, row in cast(Iterator[tuple[int, Any]], gather_object(list(zip(mine, rows, strict=True)))):
                out[position] = row
            rows = np.stack(out)
        ends = np.cumsum([len(example.items) for example in examples])
        return np.split(rows, ends[:-1])

    def _agree(self, mine: bool) -> bool:
        """What the first process thinks, in all of them; clocks differ."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor([int(mine)], device=self.accelerator.device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag.item())

    def _save(self, folder: RunFolder, reporter: Reporter) -> None:
        reporter.flush(self.accelerator)
        self.accelerator.wait_for_everyone()
        staged = folder.state / f".step-{self.progress.step}.part"
        self.accelerator.save_state(str(staged))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            folder.save_state(self.progress.step, staged, self.progress.best_epoch)
        self.accelerator.wait_for_everyone()

    def _resume(self, folder: RunFolder) -> None:
        state = folder.newest_state()
        if state is None:
            return
        self.accelerator.load_state(str(state))
        log.info("resuming at step %d, epoch %d", self.progress.step, self.progress.epoch + 1)

    def _keep_best(self, folder: RunFolder, epoch: int) -> None:
        weights: dict[str, Any] = self.accelerator.get_state_dict(self.model)
        if not self.accelerator.is_main_process:
            return
        trained = {name for name, p in self._network().named_parameters() if p.requires_grad}
        kept = {name: tensor.contiguous().cpu() for name, tensor in weights.items() if name in trained}
        replace_folder(folder.state / f"best-{epoch}", lambda path: save_file(kept, path / "weights.safetensors"))

    def _load_best(self, folder: RunFolder) -> None:
        self.accelerator.wait_for_everyone()
        weights = load_file(folder.state / f"best-{self.progress.best_epoch}" / "weights.safetensors")
        self._network().load_state_dict(weights, strict=False)

    def _network(self) -> Network:
        return cast(Network, self.accelerator.unwrap_model(self.model))
