"""The training loop: one for every task, full or LoRA, one process or many."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
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
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.dropout import hasten_dropout
from training.engine import Engine, Limits
from training.epochs import keep_epoch
from training.model import decay_groups
from training.network import Network
from training.progress import Reporter
from training.run_folder import RunFolder
from training.standing import Progress
from training.store import ExampleStore
from training.task import Task
from training.tether import Stopped, Tether

log = logging.getLogger(__name__)


class Loop:
    """Takes a network from its first step to its best epoch."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        task: Task,
        engine: Engine,
        checkpoint: Checkpoint,
        tether: Tether,
    ) -> None:
        """Prepare network and optimiser for the devices; every `auto` of the config must be resolved."""
        self.config, self.accelerator, self.task, self.engine = config, accelerator, task, engine
        self.tether, self.tokenizer = tether, checkpoint.tokenizer
        groups = decay_groups(
            checkpoint.network,
            config.weight_decay,
            cast(float, config.learning_rate) * config.learning_rate_multiplier,
            cast(float, config.head_learning_rate) * config.learning_rate_multiplier,
        )
        hasten_dropout(checkpoint.network)
        optimizer = torch.optim.AdamW(groups, fused=accelerator.device.type in ("cpu", "cuda"))
        self.model, self.optimizer = accelerator.prepare(checkpoint.network, optimizer)
        on_cpu = accelerator.device.type == "cpu"
        self._limits = Limits(
            max_tokens=cast(int, config.max_batch_tokens), max_waste=1.25 if on_cpu else 1e9, max_items=1_000_000
        )
        self._pad = None if checkpoint.network.unpadded else engine.encoder.pad_token
        self.progress, self.average = Progress(), WeightAverage(self._network(), config.average_decay)
        accelerator.register_for_checkpointing(self.progress, self.average)

    def run(self, train: ExampleStore, held: ExampleStore, folder: RunFolder, reporter: Reporter) -> None:
        """Train until the epochs or the patience end, then put the best epoch's weights back.

        Raises:
            TrainingError: the loss is not finite.
            Stopped: the order to stop came; the state is saved.
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
        with reporter.started(self.progress.step, total), self.tether.deferred():
            while self.progress.epoch < epochs and not self.progress.done:
                drawn = self.task.drawn(train, self.progress.epoch)
                self._train_epoch(self.progress.epoch, drawn, folder, reporter)
                self._finish_epoch(held, folder, reporter)
        self._load_best(folder)

    def _train_epoch(self, epoch: int, train: ExampleStore, folder: RunFolder, reporter: Reporter) -> None:
        batches = epoch_batches(train.lengths, cast(int, self.config.batch_size), self.config.seed, epoch)
        done = self.progress.step - epoch * len(batches)
        saved = time.monotonic()
        self.model.train()
        for batch in batches[done:]:
            examples = [train[i] for i in batch.tolist()]
            reporter.step(self.progress.step + 1, self.step(examples), self.accelerator)
            self.progress.step += 1
            self.progress.tokens += sum(example.tokens for example in examples)
            stop, due = self._agree(self.tether.pulled, time.monotonic() - saved > self.config.save_seconds)
            if stop or due:
                self._save(folder, reporter)
                saved = time.monotonic()
            if stop:
                raise Stopped

    def step(self, examples: Sequence[Example]) -> Tensor:
        """One optimiser step.

        The gradient is that of the weighted mean over all the examples, however they are divided.

        Returns:
            This process's part of (loss, hits, rows), the loss already divided by the whole weight.
        """
        world = self.accelerator.num_processes
        planned = shares(examples, self._limits, world, unpadded=self._pad is None)
        passes = planned[self.accelerator.process_index]
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
                seen[:2] += torch.stack([loss.detach(), hits])
                seen[2] += len(part)  # a number, which a GPU is not waited for to take
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.average.update()
        return seen

    def _finish_epoch(self, held: ExampleStore, folder: RunFolder, reporter: Reporter) -> None:
        """Measure the averaged weights, and keep them if none were better so far."""
        reporter.flush(self.accelerator)
        progress = self.progress
        with self.average.applied():
            outputs = self.score(held)
            figures = self.task.assess(outputs, held)
            if progress.judge(figures, len(held), self.config):
                self._keep_best(folder)
            reporter.evaluated(progress.step, progress.epoch, figures)
            if self.config.keep_epochs and self.accelerator.is_main_process:
                manifest = self.task.calibrated(self.engine.manifest, outputs, held)
                model = Checkpoint(self._network(), self.tokenizer, manifest)
                keep_epoch(folder, model, self.config, reporter.line() | {"epoch": progress.epoch})
                reporter.kept(progress.step)
        if progress.done and progress.epoch < cast(int, self.config.epochs):
            log.info("no better %s for %d epochs: stopping early", self.config.metric, progress.waited)
        self._save(folder, reporter)

    def score(self, examples: ExampleStore) -> list[Floats]:
        """Logits (items, width) of each example by the network as it stands, the same in every process."""
        self.model.eval()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.accelerator.distributed_type == DistributedType.FSDP:
            world, rank = 1, 0  # sharded models run in step: every process scores everything
        mine = np.arange(rank, len(examples.items), world)
        rows = self.engine.score(examples.items.take(mine))
        if world > 1:
            out: list[Any] = [None] * len(examples.items)
            found = gather_object(list(zip(mine.tolist(), rows, strict=True)))
            for position, row in cast(Iterator[tuple[int, Any]], found):
                out[position] = row
            rows = np.stack(out)
        return np.split(rows, examples.starts[1:-1])

    def _agree(self, *mine: bool) -> Sequence[bool]:
        """Of each question, whether any process says yes, the same in all of them: clocks and signals differ."""
        if self.accelerator.num_processes == 1:
            return mine
        flags = torch.tensor(mine, dtype=torch.int32, device=self.accelerator.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return [flag > 0 for flag in flags.tolist()]

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

    def _keep_best(self, folder: RunFolder) -> None:
        weights: dict[str, Any] = self.accelerator.get_state_dict(self.model)
        if not self.accelerator.is_main_process:
            return
        trained = {name for name, p in self._network().named_parameters() if p.requires_grad}
        kept = {name: tensor.contiguous().cpu() for name, tensor in weights.items() if name in trained}
        replace_folder(
            folder.best(self.progress.best_epoch), lambda path: save_file(kept, path / "weights.safetensors")
        )

    def _load_best(self, folder: RunFolder) -> None:
        self.accelerator.wait_for_everyone()
        weights = load_file(folder.best(self.progress.best_epoch) / "weights.safetensors")
        self._network().load_state_dict(weights, strict=False)

    def _network(self) -> Network:
        return cast(Network, self.accelerator.unwrap_model(self.model))
