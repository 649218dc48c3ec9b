"""What of a cluster is counted, how many points go side by side, and which clusters are refused."""

from __future__ import annotations

from importlib import import_module

import pytest

from kdray.orchestration.resources import Node, Resources, usable
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.spec.errors import InputError
from kdray.spec.load import parse_grid
from kdray.spec.sections.running import Runtime
from kdray.store import Attempt, Key, Locks, Outer, Store


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
        ([(64, 1)], 1, {"beside": 2}, 0, 1),  # which a run refuses, and a price has
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
        return make_trainer(Job(**unset | {"attempt": attempt, "use_gpu": True, "gpu": 1} | fields)).scaling_config

    h100 = scaling(workers=4, accelerator="H100", on_one_node=True)
    assert h100.accelerator_type == "H100"
    assert h100._resources_per_worker_not_none["accelerator_type:H100"] > 0
    assert h100.placement_strategy == "STRICT_PACK"
    assert scaling(workers=16, accelerator=None, on_one_node=False)._resources_per_worker_not_none == {"GPU": 1}
    part = scaling(workers=1, accelerator=None, on_one_node=True, gpu=Resources((Node(8, 1),), 1, per_gpu=6).asked(1))
    assert part._resources_per_worker_not_none == {"GPU": 0.1666}


@pytest.mark.parametrize(
    ("nodes", "per_gpu", "fields", "points", "scoring"),
    [
        ([(16, 1)], 6, {}, 6, {30: 0, 7: 0, 6: 0, 5: 1, 1: 5, 0: 6}),  # the only GPU is the points'
        ([(64, 8)], 4, {}, 28, {100: 4, 28: 4, 20: 12, 0: 32}),  # a whole one is left to scoring
        ([(64, 8)], 4, {"beside": 0}, 32, {100: 0, 1: 31}),
        ([(64, 8)] * 2, 3, {"share": 0.25}, 36, {100: 12}),
        ([(2, 0)], 1, {}, 2, {100: 1}),
    ],
)
def test_points_that_share_gpus_leave_parts_of_them_to_scoring(nodes, per_gpu, fields, points, scoring):
    resources = Resources(tuple(Node(*node) for node in nodes), 1, per_gpu=per_gpu, **fields)
    assert resources.points_beside == points
    assert {left: resources.scoring(left) for left in scoring} == scoring


@pytest.mark.parametrize(("per_gpu", "part"), [(1, 1), (6, 0.1666)])
def test_a_point_asks_ray_for_its_part_of_a_gpu(tiny_grid, tmp_path, per_gpu, part):
    from kdray.orchestration.trainer import make_job, make_trainer

    plan = make_plan(parse_grid(tiny_grid.text()), Outer(tmp_path))
    resources = Resources((Node(16, 1),), 1, per_gpu=per_gpu)
    work = Work(plan, Store(tmp_path), Outer(tmp_path), Locks(), None, resources)
    work.folder, work.soft_labels = lambda _: tmp_path, lambda *_: ()
    job = make_job(plan.points[0].train, Attempt(Key("train", "point", "0"), tmp_path, "attempt-001"), work)
    assert make_trainer(job).scaling_config._resources_per_worker_not_none == {"GPU": part}


def test_a_models_part_of_a_gpu_is_by_what_its_role_is_priced_at(tiny_grid, tmp_path, monkeypatch):
    load, adapters = map(import_module, ("kdray.models.load", "kdray.models.adapters"))
    monkeypatch.setattr(load, "weight_bytes", lambda *_: 30)
    monkeypatch.setattr(adapters, "base_of", lambda folder: folder)
    plan = make_plan(parse_grid(tiny_grid.text()), Outer(tmp_path))
    resources = Resources((Node(16, 1),), 1, gpu_memory=100, per_gpu=6)
    work = Work(plan, Store(tmp_path), Outer(tmp_path), Locks(), None, resources, scored_in={"student": 13})
    work.folder = lambda _: tmp_path
    export = next(iter(plan.points[0].exports.values()))
    assert [work.gpus_for(step, "float32") for step in (export, plan.models["student"])] == [1, 1]
    assert work.gpus_for(plan.models["teacher"], "float32") == 6  # of no price
    monkeypatch.setattr(load, "weight_bytes", lambda *_: 90)
    assert work.gpus_for(export, "float32") == 12  # its weights alone take two GPUs
    work.resources = Resources((Node(16, 1),), 1, gpu_memory=100)
    assert work.gpus_for(export, "float32") == 2


@pytest.mark.parametrize("per_gpu", range(1, 25))
def test_all_parts_of_a_gpu_fit_on_it_and_none_is_more_than_it_need_be(per_gpu):
    resources = Resources((Node(64, 8),), 1, per_gpu=per_gpu)
    part = round(10_000 * resources.asked(1))
    assert 10_000 - per_gpu < part * per_gpu <= 10_000
    assert [resources.asked(units) for units in (per_gpu, 3 * per_gpu)] == [1, 3]
    assert resources.actors() == 8 * per_gpu
    assert resources.actors(3 * per_gpu) == 2


def test_a_model_is_scored_on_a_part_of_a_gpu_where_its_memory_fits():
    resources = Resources((Node(16, 1),), 1, gpu_memory=100, per_gpu=6)
    assert [resources.units_for(1, memory) for memory in (1, 13, 14, 26, 27, 40, 41, 900)] == [1, 1, 2, 2, 3, 3, 6, 6]
    assert resources.units_for(1, None) == 6  # nobody could tell
    assert resources.units_for(2, 1) == 12  # weights alone are larger than a GPU
    assert Resources((Node(16, 1),), 1, gpu_memory=100).units_for(3, 1) == 3
    assert Resources((Node(16, 1),), 1, per_gpu=6).units_for(1, 1) == 6
