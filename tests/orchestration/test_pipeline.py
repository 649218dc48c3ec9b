"""What actors of a pipeline get of the cluster: as many GPUs as the models of their items need."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import ray.data
from ray.util.placement_group import placement_group, remove_placement_group

from kdray.orchestration.crew import Crew
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import run_pipeline
from kdray.orchestration.pools import Item
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.session import end


class Seer:
    """Notes which GPUs its process was given."""

    def __call__(self, item: Part) -> None:
        (item.target / item.key).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@pytest.mark.ray
def test_items_get_the_gpus_they_ask_for(tmp_path: Path) -> None:
    def item(key: str, gpus: int = 1) -> Part:
        return Part(key=key, gpus=gpus, target=tmp_path, index=0)

    groups = [[item("small")], [], [item("large", gpus=3), item("with large")], [item("too large", gpus=5)]]
    resources = Resources((Node(2, 4),), 1)
    ray.init(
        address="local", num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        errors = dict(run_pipeline(groups, Seer, resources, Crew()))
    finally:
        end()
    seen = {path.name: path.read_text().split(",") for path in tmp_path.iterdir()}
    assert {key: len(gpus) for key, gpus in seen.items()} == {"small": 1, "large": 3, "with large": 3}
    assert errors.pop("too large") == "the model needs 5 GPUs of one node; the largest has 4"
    assert errors == {"small": "", "large": "", "with large": ""}


@pytest.mark.ray
def test_points_that_share_a_gpu_leave_parts_of_it_to_items(tmp_path: Path) -> None:
    resources = Resources((Node(2, 1),), 1, per_gpu=6)
    items = [Part(key=f"{gpus}", gpus=gpus, target=tmp_path, index=0) for gpus in (1, 2, 6, 12)]
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        points = [placement_group([{"GPU": resources.asked(1)}]) for _ in range(6)]
        assert all(point.wait(30) for point in points), "six at once"
        for left, item in ((5, items[0]), (4, items[1]), (0, items[2])):
            while len(points) > left:
                remove_placement_group(points.pop())
            assert dict(run_pipeline([[item]], Seer, resources, Crew())) == {item.key: ""}
            assert (tmp_path / item.key).read_text() == "0"
        errors = dict(run_pipeline([[items[3]]], Seer, resources, Crew()))
        assert errors == {"12": "the model needs 2 GPUs of one node; the largest has 1"}
    finally:
        end()


@dataclass(frozen=True, kw_only=True)
class Link(Item):
    target: Path
    after: str


class Waiter:
    """Finishes an item only when the one that it comes after is known to be finished."""

    def __call__(self, item: Link) -> None:
        deadline = time.monotonic() + 300
        while item.after and not (item.target / item.after).exists():
            assert time.monotonic() < deadline, "nobody was told"
            time.sleep(0.05)


@pytest.mark.ray
def test_what_is_finished_is_told_before_the_rest_of_its_group(tmp_path: Path) -> None:
    chain = ["2", "0", "3", "1", "4"]  # in turn from the second group and from the first
    after = dict(zip(chain, ["", *chain], strict=False))
    groups = [[Link(key=key, target=tmp_path, after=after[key]) for key in group] for group in ("01", "234")]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().execution_options.preserve_order = True  # as in a session
    told = []
    try:
        for key, error in run_pipeline(groups, Waiter, Resources((Node(2, 0),), 1), Crew()):
            told.append((key, error))
            Path(tmp_path, key).touch()
    finally:
        end()
    assert told == [(key, "") for key in chain]
