import pytest
import torch
from torch import nn

from training.dropout import Dropout, dropout, hasten_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_a_share_is_left_out_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(7, 30_011, dtype=dtype), p).float()
    assert (found == 0).float().mean() == pytest.approx(p, abs=4e-3)
    assert found.mean() == pytest.approx(1, abs=8e-3)
    assert len(found.unique()) == 2


def test_values_are_left_out_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    gone = (dropout(torch.ones(400_000), 0.3) == 0).float().view(-1, 4)
    together = torch.corrcoef(gone.T) - torch.eye(4)  # the four that one draw decides about
    assert together.abs().max() < 0.015


def test_the_gradient_goes_the_way_of_the_values() -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, requires_grad=True)
    kept = dropout(values, 0.2)
    kept.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, kept.detach())


@pytest.mark.parametrize(("p", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_none_and_all(p: float, left: float) -> None:
    assert torch.equal(dropout(torch.ones(9), p), torch.full((9,), left))


def test_layers_are_replaced_and_drop_only_in_training() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"inner": nn.Dropout(0.4)}), nn.Dropout(0.3)).eval()
    hasten_dropout(module)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    assert [(type(layer), layer.p, layer.training) for layer in layers] == [
        (Dropout, 0.4, False),
        (Dropout, 0.3, False),
    ]
    values = torch.ones(1000)
    assert torch.equal(layers[0](values), values)
    assert (layers[0].train()(values) == 0).any()


def test_the_same_seed_leaves_the_same_out() -> None:
    first, second = (torch.manual_seed(3) and dropout(torch.ones(50), 0.5) for _ in range(2))
    assert torch.equal(first, second)
