"""lm-eval's tasks are found by name without its index, and what cannot be scored is refused with what could be
meant.
"""

from __future__ import annotations

import pytest

from kdray.check.benchmarks import check_benchmark, official_tasks, task_files
from kdray.check.checks import check_grid
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.store import Outer, Store
from kdray.store.outer import is_dataset


@pytest.mark.slow
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
        (
            "mmlu_stem_tasks",
            "'mmlu_stem_tasks' is a tag of lm-eval's, without a score of its own; name its tasks: mmlu_",
        ),
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

    found = [
        ids(),
        ids(likelihood="shared_prefix"),
        ids(task={"shots": 5}),
        ids(task={"chat_template": True}),
        ids(batch=4),
    ]
    assert sum(map(len, found)) == len(set.union(*found))
    assert None not in set.union(*found)


@pytest.mark.parametrize(
    ("name", "meant"), [("lm_eval", "lm_eval:NAME"), ("lm_eval:NAME", "lm_eval:NAME"), ("xsum:a", "xsum")]
)
def test_a_name_behind_a_colon_belongs_to_lm_eval_alone(name, meant, plan):
    with pytest.raises(InputError, match=f"no task '{name}'; .*{meant}"):
        plan({"score.tasks": [name]})


def test_a_misspelt_benchmark_is_found_by_check(tiny_grid):
    grid = load_grid(tiny_grid({"score.tasks": ["lm_eval:arc_eazy"]}))
    with pytest.raises(InputError, match=r"score\.tasks\.0: .*did you mean 'arc_easy'"):
        check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)


def arc(i: int, **changes) -> dict:
    return {
        "question": f"Which is {i}?",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
        "answerKey": "B",
    } | changes


def check_task(tiny_grid, changes=None, **task):
    grid = load_grid(tiny_grid({"score.tasks": [task], **(changes or {})}))
    check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)


@pytest.mark.parametrize(
    "spoilt", [{"answerKey": ""}, {"answerKey": None}, {"answerKey": "Z"}, {"choices": {"text": [], "label": []}}]
)
def test_a_source_without_right_answers_is_refused_by_check(spoilt, tiny_grid):
    tiny_grid.rows("arc.jsonl", [arc(i, **spoilt) for i in range(3)])
    task = {"name": "arc_easy", "source": f"file:{tiny_grid.folder}/arc.jsonl"}
    with pytest.raises(
        InputError, match=r"score\.tasks\.0\.source: no row of .*arc\.jsonl has its answerKey among its choices"
    ):
        check_task(tiny_grid, **task)
    tiny_grid.rows("arc.jsonl", [arc(0, **spoilt), arc(1)])
    check_task(tiny_grid, **task)


@pytest.mark.parametrize(
    ("label", "fine"), [("1", True), (1, True), ("", False), (-1, False), ("4", False), (None, False)]
)
def test_a_label_may_be_the_number_of_an_ending(label, fine, tiny_grid):
    row = {"ctx_a": "He", "ctx_b": "", "activity_label": "Run", "endings": ["a", "b", "c", "d"], "label": label}
    tiny_grid.rows("swag.jsonl", [row])
    task = {"name": "hellaswag", "source": f"file:{tiny_grid.folder}/swag.jsonl"}
    if fine:
        return check_task(tiny_grid, **task)
    with pytest.raises(InputError, match=r"no row of .* has its label among its endings"):
        return check_task(tiny_grid, **task)


@pytest.mark.parametrize("name", ["arc_easy", "lm_eval:arc_easy"])
def test_too_few_examples_are_refused_by_check(name, tiny_grid):
    """Of a test set, a question more than is shown; rows without an answer are no examples where it is known what
    answers are.
    """
    unanswered = [] if ":" in name else [arc(9, answerKey="")]
    tiny_grid.rows("arc.jsonl", [*[arc(i) for i in range(4)], *unanswered])
    tiny_grid.rows("shown.jsonl", [arc(i) for i in range(10, 12)])
    source, shown = f"file:{tiny_grid.folder}/arc.jsonl", f"file:{tiny_grid.folder}/shown.jsonl"
    check_task(tiny_grid, name=name, source=source, shots=3)
    with pytest.raises(InputError, match=r"score\.tasks\.0\.shots: 4 solved examples, .* has 4 questions .* at most 3"):
        check_task(tiny_grid, name=name, source=source, shots=4)
    check_task(tiny_grid, name=name, source=source, shots=2, shots_source=shown)
    with pytest.raises(
        InputError, match=r"score\.tasks\.0\.shots: 3 solved examples, .*shown.jsonl has 2 questions .* at most 2"
    ):
        check_task(tiny_grid, name=name, source=source, shots=3, shots_source=shown)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            {"name": "arc_easy", "shots_source": "file:HERE/arc.jsonl"},
            r"shots_source: '.*' with shots: 0; say how many shots",
        ),
        (
            {"name": "arc_easy", "shots": 1, "shots_source": "file:HERE/none.jsonl"},
            r"score\.tasks\.0\.shots_source: no file",
        ),
        (
            {"name": "arc_easy", "shots": 1, "shots_source": "file:HERE/xsum.jsonl"},
            r"score\.tasks\.0\.shots_source: no column 'question'",
        ),
        (
            {"name": "arc_easy", "shots": 1, "shots_source": "arc.jsonl"},
            r"score\.tasks\.0\.shots_source: 'arc.jsonl' has no known scheme",
        ),
        (
            {"name": "lm_eval:mmlu", "source": "file:HERE/arc.jsonl"},
            r"score\.tasks\.0\.source: data for 'mmlu', which is a group of tasks",
        ),
        (
            {"name": "lm_eval:mmlu", "shots": 1, "shots_source": "file:HERE/arc.jsonl"},
            r"score\.tasks\.0\.shots_source: data for 'mmlu'",
        ),
    ],
)
def test_examples_that_cannot_be_taken_are_refused_by_check(task, said, tiny_grid):
    tiny_grid.rows("arc.jsonl", [arc(i) for i in range(4)])
    named = {key: value.replace("HERE", str(tiny_grid.folder)) for key, value in task.items() if key != "shots"}
    with pytest.raises(InputError, match=said):
        check_task(tiny_grid, **task | named)


def test_a_task_that_brings_its_examples_along_needs_none_of_the_source(tiny_grid):
    tiny_grid.rows("bbh.jsonl", [{"input": "True is", "target": "True"}])
    check_task(
        tiny_grid, name="lm_eval:bbh_fewshot_boolean_expressions", source=f"file:{tiny_grid.folder}/bbh.jsonl", shots=3
    )


def test_examples_of_ones_own_are_part_of_a_scores_id_by_their_content(plan, tiny_grid):
    first, second = tiny_grid.rows("a.jsonl", [arc(1)]), tiny_grid.rows("b.jsonl", [arc(2)])

    def ids(shown):
        made = plan(
            {
                "score.tasks": [
                    {"name": "lm_eval:arc_easy", "shots": 1} | ({"shots_source": f"file:{shown}"} if shown else {})
                ]
            }
        )
        return {score.measure.id for score in made.scores}

    found = [ids(None), ids(first), ids(second)]
    assert sum(map(len, found)) == len(set.union(*found))
    second.write_bytes(first.read_bytes())
    assert ids(second) == found[1]


def test_examples_on_the_hub_are_a_data_set_to_be_resolved(plan):
    shown = "hf:allenai/ai2_arc#config=ARC-Easy&split=train"
    made = plan({"score.tasks": [{"name": "lm_eval:arc_easy", "shots": 1, "shots_source": shown}]})
    assert {(str(ref), is_dataset(ref.field)) for score in made.scores for ref in score.measure.references} == {
        (shown, True)
    }
    assert {score.measure.id for score in made.scores} == {None}


@pytest.fixture
def answered(tiny_grid):
    """Four questions with answers and two to be shown, as tasks name them."""
    tiny_grid.rows("arc.jsonl", [arc(i) for i in range(4)])
    tiny_grid.rows("shown.jsonl", [arc(i) for i in range(10, 12)])
    return {
        "name": "arc_easy",
        "source": f"file:{tiny_grid.folder}/arc.jsonl",
        "shots_source": f"file:{tiny_grid.folder}/shown.jsonl",
    }


def test_untrained_models_are_shown_their_own_number_of_examples(plan, answered):
    """Neither kind's id knows of the other's: they are those of plain shots.

    The teacher of the tiny grid is tuned, and so trained.
    """

    def ids(**task):
        made = plan({"score.tasks": [answered | task], "score.references": ["student", "teacher"]})
        return {str(score.subject): score.measure.id for score in made.scores}

    both, without = (
        ids(shots=0, untrained_shots=2),
        {key: value for key, value in answered.items() if key != "shots_source"},
    )
    shown = ids(shots=2)
    answered.clear()
    answered.update(without)
    assert both == ids(shots=0) | {"student": shown["student"]}
    assert shown["student"] != ids(shots=0)["student"]


@pytest.mark.parametrize(
    ("changes", "task", "said"),
    [
        (
            {},
            {"untrained_shots": 3},
            r"score\.tasks\.0\.untrained_shots: 3 solved examples, where .*shown.jsonl has 2 .* at most 2, or",
        ),
        ({}, {"untrained_shots": 0}, r"score\.tasks\.0\.shots_source: .* with shots: 0"),
        ({}, {"untrained_shots": -1}, r"score\.tasks\.0\.untrained_shots: -1; must be int >= 0"),
        (
            {"score.references": []},
            {"untrained_shots": 2},
            r"score\.tasks\.0\.untrained_shots: 2, where the models .* not of both kinds",
        ),
        (
            {"score.references": ["teacher"]},
            {"untrained_shots": 2},
            r"untrained_shots: 2, where the models that are scored are not of both",
        ),
    ],
)
def test_examples_for_untrained_models_that_cannot_be_shown_are_refused(changes, task, said, tiny_grid, answered):
    with pytest.raises(InputError, match=said):
        check_task(tiny_grid, changes, **answered | task)


def test_untrained_models_may_see_examples_and_the_others_none(tiny_grid, answered):
    check_task(tiny_grid, **answered, untrained_shots=2)
    with pytest.raises(InputError, match=r"score\.tasks\.0\.untrained_shots: 4 solved .* \(none is its own example\)"):
        check_task(tiny_grid, **answered | {"untrained_shots": 4, "shots_source": None})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{}, {"answerKey": "C"}],
            r"data\.source: answerKey 'C' is none of A, B in row 2; it must be one of them, or empty",
        ),
        ([{"answerKey": "1"}], r"data\.source: answerKey '1' is none of A, B in row 1"),
        (
            [{"answerKey": ""}, {"answerKey": None}],
            r"data\.source: no row of .*sense\.jsonl has its answerKey; give rows with right",
        ),
        ([{"answerKey": ""}, {}], None),
    ],
)
def test_answers_to_learn_that_are_no_choices_are_found_by_check(rows, said, tiny_grid):
    source = tiny_grid.rows("sense.jsonl", [arc(i, **row) for i, row in enumerate(rows)])
    grid = load_grid(tiny_grid({"data.source": f"file:{source}", "data.recipe": "commonsense_qa"}))
    outer = Outer(Store(grid.runtime.store).root)
    if said is None:
        check_grid(grid, outer, offline=True)
        return
    with pytest.raises(InputError, match=said):
        check_grid(grid, outer, offline=True)
