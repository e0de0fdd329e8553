"""The processes that train one student together: how they share its gradients or its weights, and find each other."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    parse_flag_from_env,
)
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vdmini.blocks import prunable_names
from vdmini.models.registry import family_of

# NCCL gives up after ten minutes, and the others wait while the main process samples previews or writes a checkpoint.
PATIENCE = timedelta(hours=1)


class Processes:
    """The processes of a run as one of them sees them, here one that trains by itself.

    `index` is this one's number, 0 for the main process, which alone writes files, `count` how many there are, and
    `device` where this one computes. All of them call each of these methods together.
    """

    def __init__(self, device: torch.device, index: int = 0, count: int = 1) -> None:
        self.device, self.index, self.count = device, index, count

    def spread(self, network: nn.Module) -> nn.Module:
        """The network to call in training, which averages gradients; where it is sharded, `network` itself is."""
        return network

    def accumulate(self, network: nn.Module) -> AbstractContextManager[None]:
        """A context for all but the last backward pass of a step, given what `spread` returned."""
        return nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        return values

    def wait(self) -> None:
        """Return when all have come here."""


class Launched(Processes):
    """The processes that `accelerate launch` started: one, several with whole students (DDP), or with shards (FSDP).

    Of the launch's FSDP options `reshard_after_forward` and `offload_params` count. Which modules are sharded together
    follows from the family's blocks, precision and gradient checkpointing from the settings of the distillation.

    Raises:
        ValueError: the launch asks for DeepSpeed, FSDP's first version, TPUs or Megatron; or Accelerate was set up
            before for other devices than the launch's.
    """

    def __init__(self, cpu: bool) -> None:
        if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
            raise ValueError("DeepSpeed cannot be used: --use_fsdp --fsdp_version 2 shards the same things as its ZeRO")
        if is_sharded() and os.environ.get("FSDP_VERSION", "1") != "2":
            raise ValueError("FSDP needs its second version: pass --fsdp_version 2 to accelerate launch")
        # Layers may go unused in a step, and buckets that never change keep the order in which gradients are summed,
        # so that a run which is continued rounds like the unbroken one.
        whole = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
        self._accelerator = Accelerator(
            cpu=cpu, mixed_precision="no", kwargs_handlers=[whole, InitProcessGroupKwargs(timeout=PATIENCE)]
        )
        kind = self._accelerator.distributed_type
        if kind in (DistributedType.XLA, DistributedType.MEGATRON_LM):
            raise ValueError(f"a launch of kind {kind.value} cannot be used: launch for DDP, or with --use_fsdp")
        super().__init__(self._accelerator.device, self._accelerator.process_index, self._accelerator.num_processes)
        launched = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else self.count
        if launched != self.count:
            raise ValueError(
                f"{launched} processes were launched, but Accelerate was set up for {self.count} before: where the"
                " teacher is on the CPU, call PartialState with cpu=True"
            )
        # Accelerate takes no notice of FSDP on CPUs, and its own sharding does not know our blocks.
        self._sharding = FullyShardedDataParallelPlugin() if is_sharded() and self.count > 1 else None

    def spread(self, network: nn.Module) -> nn.Module:
        """The network within DDP, or itself, its weights sharded block by block; all start as the main process's."""
        if self._sharding is None:
            within: nn.Module = self._accelerator.prepare_model(network)
            return within
        for value in network.state_dict().values():
            held = value.to(self.device)
            broadcast(held, src=0)
            value.copy_(held)
        options: dict[str, Any] = {
            "mesh": init_device_mesh(self.device.type, (self.count,)),
            "offload_policy": self._sharding.cpu_offload,
        }
        for module in sharded_modules(network):
            fully_shard(module, reshard_after_forward=self._sharding.reshard_after_forward, **options)
        # What is left of the network is needed again as soon as the backward pass starts.
        fully_shard(network, **options)
        return network

    def accumulate(self, network: nn.Module) -> AbstractContextManager[None]:
        """DDP's `no_sync`; shards are summed at once, since gradients held back would be whole."""
        if self._sharding is not None:
            return nullcontext()
        held_back: AbstractContextManager[None] = self._accelerator.no_sync(network)
        return held_back

    def mean(self, values: Tensor) -> Tensor:
        averaged: Tensor = self._accelerator.reduce(values, "mean")
        return averaged

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()


def is_sharded() -> bool:
    """Whether this process was launched to hold a shard of the student: `accelerate launch --use_fsdp`."""
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def sharded_modules(network: nn.Module) -> list[nn.Module]:
    """What FSDP gathers one after the other: the blocks that may be pruned, which hold nearly all weights."""
    family = family_of(network)
    modules = family.block_modules(network)
    return [module for name in prunable_names(modules, family.stage_modules(network)) for module in modules[name]]
