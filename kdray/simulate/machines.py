"""Which GPUs of which node are taken, as Ray places what asks for them: where they fit most closely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Places = Mapping[int, int]  # GPUs by node


class Machines:
    """The nodes of a cluster, and what is free of them."""

    def __init__(self, gpus: Sequence[int]) -> None:
        self.size, self.free, self.away = list(gpus), list(gpus), set[int]()

    def take(self, gpus: int, on_one_node: bool = True) -> Places | None:
        """So many GPUs, of one node or of as few as can be; None where they are not free."""
        here = [node for node, free in enumerate(self.free) if free and node not in self.away]
        if fit := [node for node in here if self.free[node] >= gpus]:
            places = {min(fit, key=lambda node: (self.free[node], node)): gpus}
        elif on_one_node or sum(self.free[node] for node in here) < gpus:
            return None
        else:
            places, left = dict[int, int](), gpus
            for node in sorted(here, key=lambda node: -self.free[node]):
                if left:
                    places[node] = min(left, self.free[node])
                    left -= places[node]
        for node, taken in places.items():
            self.free[node] -= taken
        return places

    def give(self, places: Places) -> None:
        """GPUs back; of a node that is away too."""
        for node, taken in places.items():
            self.free[node] += taken

    def gpus_away(self) -> int:
        """Of the nodes that are lost just now."""
        return sum(self.size[node] for node in self.away)

    def gpus_free(self) -> int:
        """Of all other nodes."""
        return sum(free for node, free in enumerate(self.free) if node not in self.away)
