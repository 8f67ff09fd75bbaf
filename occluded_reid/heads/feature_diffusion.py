"""Feature diffusion: other people are mixed into an embedding, as if they stood in the picture (FED, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import gated_gelu, nearest_centroids, neighbour_attention
from occluded_reid.heads.base import Head, make_classifier
from occluded_reid.heads.occlusion_erasing import ErasingInfo, PartNorms, mask_scores, require_whole_rows
from occluded_reid.registry import HEADS, did_you_mean

__all__ = ["FeatureDiffusionHead", "GatedFeedForward"]


class GatedFeedForward(nn.Module):
    """LayerNorm → Linear D to 2·ratio·D → GEGLU → Linear ratio·D to D, token by token, without residual.

    Args:
        width: D.
        ratio: of the hidden width to D.
    """

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * ratio * width)
        self.narrow = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        narrowed: Tensor = self.narrow(gated_gelu(self.widen(self.norm(tokens))))
        return narrowed


@HEADS.register("feature_diffusion")
class FeatureDiffusionHead(Head):
    """Slot ``diffused``, in training only: z, with its nearest other identities mixed into what is visible of it.

    The K nearest centroids N of other identities are sought in a memory's bank, as it was before this batch, and
    brought to length 1. With q = W_q z and [k, v] = W_kv N, attention over the K neighbours gives, after a projection
    and cut into P parts, G₁; then G₂ = FFN_a(G₁), r = FFN_b(s ⊙ G₂ + z), and ρ_p = BN_p(r_p) is classified. Nothing
    is detached: what ρ learns reaches z.

    Args:
        info: what the builder knows.
        source: occlusion-erasing head before this one, whose z and s are used.
        memory: memory before this one, whose bank is searched; of the same width.
        neighbours: K. With C identities there are C - 1 others, so min(K, C - 1) are taken.
        heads: of the attention; each has P·C / heads columns.
        attn_scale: "head_width" scales dot products by (P·C / heads)^-½; "code" by (C / heads)^-½ as the released code
            does, which leaves the parts out of the head's width.
        ratio: hidden width of the feed-forward nets over C.
        residual: add the input of each feed-forward net to its output (FED: no).
        scores: what guides the fusion: the "predicted" s (FED), the occluder's "mask" m, or "none": r = FFN_b(G₂ + z),
            so that others are mixed into visible and hidden parts alike.
        norm: "shared" with the erasing head (FED): its running statistics then follow z and ρ in turn; or "separate".

    Raises:
        BuildError: a head that is named is not there or of another kind, widths do not fit, or there is one identity.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        source: str = "erasing",
        memory: str = "memory",
        neighbours: Annotated[int, Field(ge=1)] = 8,
        heads: Annotated[int, Field(ge=1)] = 8,
        attn_scale: Literal["head_width", "code"] = "head_width",
        ratio: Annotated[int, Field(ge=1)] = 4,
        residual: bool = False,
        scores: Literal["predicted", "mask", "none"] = "predicted",
        norm: Literal["shared", "separate"] = "shared",
    ) -> None:
        super().__init__(info)
        self.source, self.memory, self.heads, self.residual, self.scores = source, memory, heads, residual, scores
        before = _require_heads(info, source, memory)
        self.parts, width = before.parts, before.width
        whole = self.parts * width
        if whole % heads or width % heads:
            raise BuildError(
                f"head '{info.name}': {self.parts} parts of {width} channels cannot be divided among {heads} heads. "
                "Choose a number of heads that divides the channels."
            )
        if info.num_classes == 1:
            raise BuildError(f"head '{info.name}' seeks other identities, and there is one. Train with two or more.")
        self.rows = -(-info.input_size[0] // before.maps["scores"].stride)
        if scores == "mask":
            require_whole_rows(info, self.rows)
        self.neighbours = min(neighbours, (info.num_classes or neighbours + 1) - 1)
        self.info = HeadInfo(slots={"diffused": whole}, training_only=True)
        self.scale = ((whole if attn_scale == "head_width" else width) / heads) ** -0.5
        self._shared = before.norms  # a tuple: these norms belong to the erasing head
        if info.num_classes is None:
            return  # built for inference, where nothing of this exists
        self.ask = nn.Linear(whole, whole, bias=False)
        self.offer = nn.Linear(whole, 2 * whole, bias=False)
        self.project = nn.Linear(whole, whole)
        self.blend, self.fuse = GatedFeedForward(width, ratio), GatedFeedForward(width, ratio)
        self.own_norms = PartNorms(self.parts, width, before.norms[0].views) if norm == "separate" else None
        self.classifier = make_classifier(whole, info.num_classes, bias=False)

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return r, ρ and its logits."""
        before, bank = context[self.source], context[self.memory].maps["bank"].flatten(1)
        embedding = torch.cat(list(before.embeddings.values()), dim=1)
        labels = None if targets is None else targets.identity
        nearest = normalize(bank[nearest_centroids(embedding, bank, self.neighbours, labels)], dim=2)
        keys, values = self.offer(nearest).chunk(2, dim=2)
        attended = self.project(neighbour_attention(self.ask(embedding), keys, values, self.heads, self.scale))
        parts, tokens = embedding.view(len(embedding), self.parts, -1), attended.view(len(embedding), self.parts, -1)
        blended = self._feed(self.blend, tokens)
        if self.scores == "mask":
            blended = mask_scores(self.name, targets, self.parts, self.rows).to(blended.dtype)[:, :, None] * blended
        elif self.scores == "predicted":
            blended = before.maps["scores"][:, :, 0] * blended
        fused = self._feed(self.fuse, blended + parts)
        norms = self._shared[0] if self.own_norms is None else self.own_norms
        diffused = norms(fused, targets).flatten(1)
        return HeadOutput(
            features={"diffused": fused.flatten(1)},
            embeddings={"diffused": diffused},
            logits={"diffused": self.classifier(diffused)},
        )

    def _feed(self, net: nn.Module, tokens: Tensor) -> Tensor:
        fed: Tensor = net(tokens)
        return fed + tokens if self.residual else fed


def _require_heads(info: BuildInfo, source: str, memory: str) -> ErasingInfo:
    before, bank = info.heads.get(source), info.heads.get(memory)
    if not isinstance(before, ErasingInfo):
        raise BuildError(
            f"head '{info.name}' takes the parts of head '{source}', which is no occlusion-erasing head before it."
            f"{did_you_mean(source, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. Set source."
        )
    if bank is None or "bank" not in bank.maps:
        raise BuildError(
            f"head '{info.name}' searches the bank of head '{memory}', which is no memory before it."
            f"{did_you_mean(memory, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. Set memory."
        )
    if bank.maps["bank"].channels != before.parts * before.width:
        raise BuildError(
            f"head '{info.name}': the bank of '{memory}' is {bank.maps['bank'].channels} wide, the embedding of "
            f"'{source}' {before.parts * before.width}. Search a memory of that head."
        )
    return before
