"""The nearest columns of each line, found in blocks that are looked at once and forgotten."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Proposals"]


class Proposals:
    """For each query the `size` smallest distances seen so far, in no order; memory does not grow with what is seen.

    Only what is nearer than the farthest of them can change anything. Once the lists are full that is a handful of a
    block, so a comparison replaces the selection, which costs about ten times as much.

    Args:
        queries: number of lists.
        size: length of each list.
        device: where the distances will be.

    Example:
        >>> nearest = Proposals(1, 2, torch.device("cpu"))
        >>> nearest.update(0, torch.tensor([[0.5, 0.1]]), start=0)
        >>> nearest.update(0, torch.tensor([[0.9, 0.3]]), start=2)
        >>> sorted(zip(nearest.distance[0].tolist(), nearest.position[0].tolist()))[1][1]
        3
    """

    def __init__(self, queries: int, size: int, device: torch.device) -> None:
        self.size = size
        self.distance = torch.full((queries, size), torch.inf, device=device)
        """(Nq, size) float32; infinite where fewer were seen."""
        self.position = torch.zeros((queries, size), dtype=torch.int64, device=device)
        """(Nq, size) where they were seen; 0 where the distance is infinite."""
        self._bound = torch.full((queries,), torch.inf, device=device)

    def update(self, first: int, distance: Tensor, start: int) -> None:
        """Take notice of the distances (nq, ng) of the queries first … first + nq to the rows start … start + ng.

        What is infinitely far is never listed.
        """
        mine = torch.arange(first, first + len(distance), device=distance.device)
        lines = torch.nonzero(distance.amin(1) < self._bound[mine])[:, 0]
        if not len(lines):
            return
        if 2 * len(lines) < len(distance):  # of a large gallery most tiles hold nothing new for most queries
            distance, mine = distance[lines], mine[lines]
        nearer = distance < self._bound[mine, None]
        if int(torch.count_nonzero(nearer)) > 2 * self.size * len(mine):  # not full yet, or rows in order of distance
            near, column = distance.topk(min(self.size, distance.shape[1]), largest=False, sorted=False)
        else:
            near, column = _listed(distance, nearer)
        joined = torch.cat([self.distance[mine], near], dim=1)
        best, order = joined.topk(self.size, largest=False, sorted=False)
        self.distance[mine] = best
        self.position[mine] = torch.cat([self.position[mine], column + start], dim=1).gather(1, order)
        self._bound[mine] = best.amax(1)


def _listed(distance: Tensor, nearer: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen distances of each line and their columns, (nq, most of any line); infinity fills short lines."""
    place = torch.nonzero(nearer.flatten())[:, 0]
    line = place // distance.shape[1]
    begin = torch.searchsorted(line, torch.arange(len(distance) + 1, device=line.device))
    most = int(begin.diff().max())
    to = line * most + torch.arange(len(line), device=line.device) - begin[line]
    near = distance.new_full((len(distance) * most,), torch.inf).index_copy_(0, to, distance.flatten()[place])
    column = place.new_zeros(len(near)).index_copy_(0, to, place - line * distance.shape[1])
    return near.view(len(distance), most), column.view(len(distance), most)
