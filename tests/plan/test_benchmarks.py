"""lm-eval's tasks are found by name without its index, and what cannot be scored is refused with what could be meant."""

from __future__ import annotations

import pytest

from kdray.plan.benchmarks import check_benchmark, official_tasks, task_files
from kdray.plan.checks import check_grid
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.store import Outer, Store


def test_tasks_and_groups_are_found_in_their_files():
    files = task_files()
    assert files["arc_easy"] == official_tasks() / "arc" / "arc_easy.yaml"
    assert files["mmlu"] == official_tasks() / "mmlu" / "default" / "_mmlu.yaml"
    assert len(files) > 10_000


@pytest.mark.parametrize("name", ["mmlu", "mmlu_anatomy", "gsm8k", "lambada_openai", "winogrande"])
def test_what_can_be_scored_passes(name):
    check_benchmark(name, "score.tasks.0")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mmlu_anatomi", "score.tasks.0: lm-eval has no task or group 'mmlu_anatomi'; did you mean 'mmlu_anatomy'"),
        ("qqqqqqqqqq", "lm-eval has no task or group 'qqqqqqqqqq'; `lm_eval ls tasks` lists them"),
        ("wikitext", "'wikitext' asks for loglikelihood_rolling; supported are multiple_choice"),
        ("mmlu_stem_tasks", "'mmlu_stem_tasks' is a tag of lm-eval's, without a score of its own; name its tasks: mmlu_"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(name, said):
    with pytest.raises(InputError) as caught:
        check_benchmark(name, "score.tasks.0")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.slow
def test_the_files_hold_every_task_and_group_of_lm_evals_index():
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    assert set(manager.all_groups + manager.all_subtasks) <= task_files().keys()
    assert all(task_files()[name] == entry.yaml_path for name, entry in manager.task_index.items() if entry.yaml_path)


def test_path_shots_and_chat_template_are_part_of_a_scores_id(plan):
    def ids(**changes):
        tasks = [{"name": "lm_eval:arc_easy", "limit": 3, **changes.pop("task", {})}]
        made = plan({"score.tasks": tasks, **{f"score.{name}": value for name, value in changes.items()}})
        return {score.measure.id for score in made.scores}

    found = [ids(), ids(likelihood="shared_prefix"), ids(task={"shots": 5}), ids(task={"chat_template": True}), ids(batch=4)]
    assert sum(map(len, found)) == len(set.union(*found))
    assert None not in set.union(*found)


@pytest.mark.parametrize(("name", "meant"), [("lm_eval", "lm_eval:NAME"), ("lm_eval:NAME", "lm_eval:NAME"), ("xsum:a", "xsum")])
def test_a_name_behind_a_colon_belongs_to_lm_eval_alone(name, meant, plan):
    with pytest.raises(InputError, match=f"no task '{name}'; .*{meant}"):
        plan({"score.tasks": [name]})


def test_a_misspelt_benchmark_is_found_by_check(tiny_grid):
    grid = load_grid(tiny_grid({"score.tasks": ["lm_eval:arc_eazy"]}))
    with pytest.raises(InputError, match=r"score\.tasks\.0: .*did you mean 'arc_easy'"):
        check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)
