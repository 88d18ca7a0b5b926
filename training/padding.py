"""Whether a network is trained with padding."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from training.config import TrainConfig
from training.engine.trial import settle, why_padded
from training.errors import ConfigError
from training.network import Network

_PRECISION = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_unpadded(config: TrainConfig, network: Network, accelerator: Accelerator) -> bool:
    """Have a network take texts without padding unless that is ruled out or gives something else; one line tells.

    The network is on its device then.

    Raises:
        ConfigError: it was asked for and cannot be done.
    """
    network.to(accelerator.device)
    network.unpadded = False
    if config.unpadded is False:
        return False
    if accelerator.distributed_type == DistributedType.FSDP:
        reason = "the model is sharded"
    else:
        reason = why_padded(network, accelerator.device, _PRECISION[accelerator.mixed_precision])
    if config.unpadded is True and reason:
        raise ConfigError(f"unpadded true: {reason}; set auto or false")
    settle(network, reason)
    return network.unpadded
