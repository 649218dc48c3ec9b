"""What of a cluster is counted, how many points go side by side, and which clusters are refused."""

from __future__ import annotations

import pytest

from kdray.orchestration.resources import Node, Resources, usable
from kdray.spec.errors import InputError
from kdray.spec.sections.running import Runtime
from kdray.store import Attempt, Key


@pytest.mark.parametrize(
    ("nodes", "workers", "points", "actors"),
    [
        ([(2, 0)], 1, 2, 2),
        ([(2, 0)], 2, 1, 2),
        ([(2, 0)], 3, 0, 2),
        ([(64, 8)], 4, 2, 8),
        ([(4, 0), (64, 8), (64, 8)], 4, 4, 16),
        ([(4, 0), (64, 6), (64, 6)], 4, 2, 12),  # a point's workers share a node, so four GPUs are left over
        ([(64, 8), (64, 8)], 16, 1, 16),  # too many for one node: spread
        ([(64, 8)], 16, 0, 8),
    ],
)
def test_points_side_by_side_are_what_the_gpus_or_else_the_cores_of_each_node_allow(nodes, workers, points, actors):
    resources = Resources(tuple(Node(*node) for node in nodes), workers)
    assert resources.concurrent_points == points
    assert resources.actors() == actors


@pytest.mark.parametrize(
    ("nodes", "workers", "fields", "points", "scoring"),
    [
        ([(64, 8)] * 4, 1, {}, 28, 4),  # a tenth of the GPUs, rounded up
        ([(64, 8)] * 4, 1, {"share": 0.25}, 24, 8),
        ([(64, 8)] * 4, 1, {"beside": 2}, 30, 2),
        ([(64, 8)] * 4, 1, {"beside": 0}, 32, 0),
        ([(64, 8)] * 4, 4, {}, 7, 4),
        ([(64, 8)] * 4, 4, {"beside": 5}, 6, 8),  # a point is not cut
        ([(64, 8)], 4, {}, 1, 4),
        ([(64, 8)], 4, {"share": 0.0}, 1, 4),
        ([(64, 8)], 4, {"beside": 0}, 2, 0),
        ([(64, 4)], 4, {}, 1, 0),  # never the only point's
        ([(64, 8)], 5, {}, 1, 3),  # but what it leaves
        ([(8, 0)], 1, {}, 8, 4),  # cores are shared
        ([(8, 0)], 1, {"beside": 1}, 8, 1),
        ([(8, 0)], 1, {"beside": 0}, 8, 0),
        ([(1, 0)], 1, {}, 1, 1),
    ],
)
def test_beside_points_that_train_there_is_room_to_score(nodes, workers, fields, points, scoring):
    resources = Resources(tuple(Node(*node) for node in nodes), workers, **fields)
    assert (resources.points_beside, resources.scoring(points=100)) == (points, scoring)
    assert resources.scoring(points=0) == resources.actors()


def test_what_the_last_points_leave_is_for_scoring():
    resources = Resources((Node(64, 8),) * 2, workers=2)
    assert [resources.scoring(points) for points in (100, 7, 6, 2, 1, 0)] == [2, 2, 4, 12, 14, 16]


@pytest.mark.parametrize(
    ("weights", "gpus", "actors"),
    [
        (65.5e9, 1, 14),  # 32B in bfloat16
        (141.1e9, 3, 4),  # 70B: two on the node with eight, one on each of the others
        (400e9, 6, 1),
        (640e9, 10, 0),  # no node is large enough
    ],
)
def test_a_model_larger_than_a_gpu_gets_several_of_one_node(weights, gpus, actors):
    resources = Resources((Node(64, 8), Node(64, 3), Node(64, 3)), 1, gpu_memory=80 << 30)
    assert resources.gpus_for(int(weights)) == gpus
    assert resources.actors(gpus) == actors
    assert Resources((Node(64, 8),), 1).gpus_for(int(weights)) == 1  # nobody could tell how large they are


@pytest.mark.parametrize(("workers", "threads"), [(1, 2), (2, 1), (4, 1)])
def test_the_teachers_threads_fit_on_one_node(workers, threads):
    assert Resources((Node(2, 0), Node(2, 0)), workers).teacher_threads == threads


H100 = {"CPU": 96.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
L4 = {"CPU": 48.0, "GPU": 4.0, "accelerator_type:L4": 1.0}
HEAD = {"CPU": 0.0, "memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "fields", "gpus", "points"),
    [
        ([HEAD, H100, L4], {}, 12, 12),
        ([HEAD, H100, L4], {"accelerator": "H100", "workers": 4}, 8, 2),
        ([HEAD, H100, L4], {"accelerator": "L4", "workers": 4}, 4, 1),
        ([HEAD, H100, L4], {"device": "cpu", "workers": 8}, 0, 18),
    ],
)
def test_only_the_wanted_gpus_are_counted(nodes, fields, gpus, points):
    resources = usable(Runtime(store="unused", **fields), nodes)
    assert (resources.gpus, resources.concurrent_points) == (gpus, points)


@pytest.mark.parametrize(
    ("nodes", "fields", "message"),
    [
        ([HEAD, L4], {"accelerator": "H100"}, "runtime.accelerator: H100, which this Ray has none of; it has L4"),
        ([HEAD], {"accelerator": "H100"}, "runtime.accelerator: H100, which this Ray has none of; it has no GPU"),
        (
            [HEAD],
            {"device": "gpu"},
            "runtime.device: gpu, but this Ray has none; use auto or cpu, or a cluster with GPUs",
        ),
        ([H100], {"workers": 16}, "runtime.workers: 16 workers need 16 GPUs; this Ray has 8"),
        (
            [L4, L4],
            {"workers": 6},
            "runtime.workers: 6 workers need 6 GPUs on one node; this Ray has 8, at most 4 on a node",
        ),
        ([H100, L4], {"accelerator": "L4", "workers": 8}, "runtime.workers: 8 workers need 8 L4 GPUs; this Ray has 4"),
        ([HEAD, {"CPU": 2.0}], {"workers": 3}, "runtime.workers: 3 workers need 3 CPUs; this Ray has 2"),
        ([H100], {"workers": 4, "beside": 5}, "runtime.beside: 5 GPUs beside points of 4; this Ray has 8 in all"),
        ([{"CPU": 2.0}], {"beside": 3}, "runtime.beside: 3 cores beside points of 1; this Ray has 2 in all"),
    ],
)
def test_a_cluster_too_small_for_one_point_is_refused(nodes, fields, message):
    with pytest.raises(InputError) as error:
        usable(Runtime(store="unused", **fields), nodes)
    assert str(error.value) == message


def test_the_accelerator_is_what_train_asks_ray_for(tmp_path):
    from kdray.orchestration.job import Job
    from kdray.orchestration.trainer import make_trainer

    def scaling(**fields):
        attempt = Attempt(Key("train", "point", "0"), tmp_path, "attempt-001")
        unset = dict.fromkeys(field for field in Job.__dataclass_fields__ if field not in fields)
        return make_trainer(Job(**unset | {"attempt": attempt, "use_gpu": True} | fields)).scaling_config

    h100 = scaling(workers=4, accelerator="H100", on_one_node=True)
    assert h100.accelerator_type == "H100"
    assert h100._resources_per_worker_not_none["accelerator_type:H100"] > 0
    assert h100.placement_strategy == "STRICT_PACK"
    assert scaling(workers=16, accelerator=None, on_one_node=False)._resources_per_worker_not_none == {"GPU": 1}
