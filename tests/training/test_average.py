import torch
from torch import nn

from training.average import WeightAverage


def layer() -> nn.Linear:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    return module


def test_it_follows_the_weights_at_the_pace_of_its_decay() -> None:
    module = layer()
    average = WeightAverage(module, decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(module.weight, float(step))
        average.update()
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert module.weight.item() == torch.tensor(expected).item()
    assert module.weight.item() == 29.0


def test_without_decay_it_is_the_weights() -> None:
    module = layer()
    average = WeightAverage(module, decay=0.0)
    nn.init.constant_(module.weight, 3.0)
    average.update()
    with average.applied():
        assert module.weight.item() == 3.0


def test_frozen_weights_are_left_out_and_state_comes_back() -> None:
    module = nn.Sequential(layer(), layer())
    module[0].requires_grad_(False)
    average = WeightAverage(module, decay=0.9)
    nn.init.constant_(module[1].weight, 1.0)
    average.update()
    state = average.state_dict()
    assert len(state["average"]) == 1
    other = WeightAverage(module, decay=0.9)
    other.load_state_dict(state)
    with other.applied():
        restored = module[1].weight.item()
    with average.applied():
        assert module[1].weight.item() == restored != 1.0
