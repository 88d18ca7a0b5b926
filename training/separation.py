"""Pairs whose two texts see each other only in the uppermost layers.

A base that was made for similarity has only ever seen texts alone. Put side by side, and attending to each other from
the first layer on, they come out as something else: the cosine of all-MiniLM-L6-v2 finds the right holding for 51 %
of CaseHOLD's test queries, that of the same texts encoded together for 41 %. With the lower layers kept apart, a pair
starts as it would alone, and training decides what the upper layers make of the other text (MacAvaney et al. 2020,
arXiv:2004.14255, who join them late to store the lower part).
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.unpadded import Runs, first_position

_FAMILIES = frozenset(("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"))
"""Encoders whose layers take a ready mask (texts, 1, tokens, tokens) and whose positions can be given."""
_FEW = 5_000
"""Training queries up to which texts of pairs had better not meet; measured at hundreds, a guess beyond."""


def layers_of(backbone: Any) -> list[nn.Module]:
    """The transformer's layers, the lowest first."""
    lists = (list(module) for module in backbone.modules() if isinstance(module, nn.ModuleList))
    return max(lists, key=len, default=[])


def separable_layers(backbone: Any) -> int:
    """How many layers a backbone has in which texts can be kept apart; 0 where that is not known to work."""
    return len(layers_of(backbone)) if backbone.config.model_type in _FAMILIES else 0


def default_cross_layers(backbone: Any, queries: int, *, embedder: bool) -> int | None:
    """In how many layers a pair's texts see each other, if nobody says: in all (None) but of an embedder.

    An embedder's see each other in none below `_FEW` training queries, and in a third of the layers from there on.
    A few hundred queries teach a base little about texts that meet, and make it forget more: on CaseHOLD (256 queries)
    0.55 of the holdings are found, 0.57 by texts kept apart; trained on WikiQA (771 queries) and asked TREC DL 2019,
    ndcg@10 is 0.50, and 0.56 kept apart, while WikiQA itself gains 0.02 mrr@10 from meeting (docs/quality.md).
    """
    layers = separable_layers(backbone)
    if not embedder or not layers:
        return None
    return 0 if queries < _FEW else max(1, round(layers / 3))


class Separation:
    """Keeps the texts of pairs apart in a backbone's lower layers; at once, and for as long as the backbone lives."""

    def __init__(self, backbone: Any, cross_layers: int) -> None:
        """Let texts see each other in the uppermost `cross_layers` only."""
        self._config = backbone.config
        self._masks: tuple[Tensor, Tensor] | tuple[Runs, Runs] | None = None
        layers = layers_of(backbone)
        for layer in layers[: len(layers) - cross_layers]:
            layer.register_forward_pre_hook(self._keep_apart, with_kwargs=True)

    def inputs(self, mask: Tensor, split: Tensor) -> dict[str, Tensor]:
        """What the backbone is given for pairs instead of their mask; then call it before anything else.

        Args:
            mask: (pairs, tokens), 1 where there is a token.
            split: (pairs,), where the second text begins.
        """
        place = torch.arange(mask.shape[1], device=mask.device)
        second = place >= split[:, None]
        together = (mask > 0)[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        apart = together & (second[:, None, :, None] == second[:, None, None, :])
        masks = self._masks = self._as_taken(together), self._as_taken(apart)
        positions = first_position(self._config) + place - second * split[:, None]
        return {"attention_mask": masks[0], "position_ids": positions}

    def keep(self, together: Runs, apart: Runs) -> None:
        """The same for texts without padding: have the lower layers take `apart` where they are given `together`."""
        self._masks = together, apart

    def _as_taken(self, allowed: Tensor) -> Tensor:
        if self._config._attn_implementation != "eager":
            return allowed.contiguous()
        return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, torch.finfo(torch.float32).min)

    def _keep_apart(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace the mask on its way into a lower layer."""
        if self._masks is None:
            return None
        together, apart = self._masks
        changed = tuple(apart if value is together else value for value in args)
        return changed, {name: apart if value is together else value for name, value in kwargs.items()}
