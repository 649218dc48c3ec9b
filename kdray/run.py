"""Run a grid: resolve what comes from outside, then do every step that is missing, stage by stage."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rich.markup import escape

from kdray.check.checks import check_models
from kdray.check.ends import end_notes
from kdray.check.kinds import check_kinds
from kdray.check.machine import needs_of, require_gpus
from kdray.check.shapes import check_shapes, shape_of
from kdray.cost.shown import expected, scoring_share, sharers
from kdray.orchestration.progress import Progress
from kdray.orchestration.session import ray_session
from kdray.orchestration.watchdog import Watchdog, awaited
from kdray.orchestration.work import Work
from kdray.plan import Plan, Step, make_plan, reading
from kdray.plan.inputs import (
    AnnotateInputs,
    AnswerInputs,
    AnswersInputs,
    CurateInputs,
    GenerateInputs,
    JoinInputs,
    LensInputs,
    RetokeniseInputs,
    SoftenInputs,
    TrainInputs,
)
from kdray.spec.folders import CONFIG, GENERATION, TOKENIZER_FILES
from kdray.spec.grid import Grid
from kdray.spec.installed import import_of
from kdray.spec.uses import entries_by_field
from kdray.store import Control, Locks, Outer, Store, io
from kdray.store.done import require_intact

AGAIN = 5.0  # seconds after which an interruption that had no effect is raised again
LOOK = 1.0  # seconds between looks at what points wait for


def resolve(grid: Grid, outer: Outer) -> Plan:
    """The plan of `grid` with every outer reference resolved, asking the hub and the registry where needed.

    Raises:
        InputError: a reference cannot be resolved.
    """
    return resolved(lambda: make_plan(grid, outer), outer)


def resolved(make: Callable[[], Plan], outer: Outer) -> Plan:
    """As `resolve`, of the plan that `make` makes."""
    for step in make().steps():
        for ref in step.references:
            outer.resolve(ref, ref.field)
    return make()


def run(
    plan: Plan,
    store: Store,
    outer: Outer,
    progress: Progress,
    after: Callable[[], None],
    *,
    insecure: bool = False,
    failing: Callable[[str], None] = lambda text: None,
) -> dict[str, str]:
    """Do what is missing of `plan`. Returns why steps failed, by id; empty if all is done but what was stopped.

    `after` is called now and then, whenever curves or scores may have grown, `failing` with a line about a failed step.
    `insecure` allows a cluster of several hosts that asks for no token.

    Raises:
        InputError: the input turns out to be unusable (a missing column, too few rows, no resources).
    """
    progress.say("starting Ray ...")
    needs = needs_of(plan.grid, trains=bool(plan.prepare))
    with (
        ray_session(plan.grid.runtime, needs, insecure=insecure) as resources,
        Locks() as locks,
        Control(store.root).announced(plan.grid.name, locks),
        Watchdog(progress) as dog,
        _insistent_interrupt(),
    ):
        # Imported once Ray is up, so that its settings are in the environment before it is loaded.
        import ray

        from kdray.orchestration.probe import probe
        from kdray.scorer import score
        from kdray.stages.annotate import annotate
        from kdray.stages.augment import augment
        from kdray.stages.curate import curate
        from kdray.stages.generate import generate, generate_by_vllm
        from kdray.stages.lens import given_lens, lens, read_annotations
        from kdray.stages.measure import measure
        from kdray.stages.model import model
        from kdray.stages.prepare import prepare
        from kdray.stages.retokenise import retokenise
        from kdray.stages.soften import soften
        from kdray.stages.teach import teach
        from kdray.stages.train import train

        for entry in entries_by_field(plan.grid).values():
            import_of(entry)  # what cannot be imported is told before any work
        if not resources.gpus:
            require_gpus(plan.grid, "without a GPU", trains=bool(plan.prepare))
        work = Work(plan, store, outer, locks, dog, resources, after, failing)
        dog.awaited = lambda: awaited(work, ray.available_resources)
        steps = {step.key: step for step in plan.steps()}.values()
        models = [step for step in steps if step.kind == "model"]
        if work.missing(models):
            work.crew.begin(resources)  # models are read one after the other
        model(models, work)
        probe(reading(steps, AnswersInputs, AnnotateInputs), work)
        lenses = reading(steps, LensInputs)
        for step in lenses:
            if step.files:
                given_lens(step, work)  # what is wrong with either is not found out after days of training
            if step.source:
                read_annotations(step, work)
        folders = {role: work.folder(step.untuned) for role, step in plan.models.items()}
        for step in plan.models.values():  # here damage is said of the store's file, not of what the grid file names
            require_intact(work.folder(step.untuned), (CONFIG, GENERATION, *TOKENIZER_FILES).__contains__)
        check_kinds(plan.grid, folders, by_role=bool(plan.prepare))
        check_shapes(
            plan.grid, {role: shape_of(folder) for role, folder in folders.items()}, by_role=bool(plan.prepare)
        )
        if plan.prepare:
            check_models(plan.grid, folders)
            for note in end_notes(plan.grid, folders):
                progress.say(f"[yellow]note[/] {escape(note)}")
            prepare([plan.prepare], work)
            curate(reading(steps, CurateInputs), work)
            retokenise([step for step in reading(steps, RetokeniseInputs) if step.inputs.data is plan.prepare], work)
        asking = generate(reading(steps, GenerateInputs), work)
        measuring = measure([score.measure for score in plan.scores], work)
        for stage in (asking, measuring):
            stage.look()
        annotated = reading(steps, AnnotateInputs)
        score([generate([step.inputs.outputs for step in annotated], work)], work)
        annotate(annotated, work)
        lens(lenses, work)  # of the untrained student: what trains no lens is found out before any point trains
        if plan.prepare:
            teach([step for step in reading(steps, TrainInputs) if step.kind == "teach"], work)
            augment(reading(steps, AnswerInputs, JoinInputs), work)
            retokenise(reading(steps, RetokeniseInputs), work)  # answers too
            soften(reading(steps, SoftenInputs), work)
        price = None
        if plan.points:
            price = expected(work.choices.narrowed(), store, outer, max(1, resources.gpus), resources.gpu_memory)
        per_gpu = sharers(price, plan.grid.runtime, resources.gpu_memory) if resources.gpus and plan.points else 1
        if per_gpu > 1:
            progress.say(f"{per_gpu} points train on each GPU (runtime.points_per_gpu)")
        if price:
            work.scored_in = price.scored_in
            work.expected = {
                str(cost.mark): cost.seconds if resources.gpus else cost.operations for cost in price.points
            }
        if plan.grid.score.engine == "vllm":  # it wants all GPUs, and points get them before
            work.resources = replace(resources, beside=0, per_gpu=per_gpu)
            train(plan.points, work)
            work.resources = replace(resources, beside=0)
            if choosing := [each.measure for scores in work.choices.choosing.values() for each in scores]:
                generate_by_vllm([step.inputs.outputs for step in reading(choosing, AnswersInputs)], work)
                score([measure(choosing, work)], work)
            generate_by_vllm(asking.steps, work)
            score([measuring], work)
        else:
            work.resources = replace(resources, share=scoring_share(price), per_gpu=per_gpu)
            scored = threading.Event()

            def train_all() -> None:
                train([point for point in plan.points if not point.point.aligned], work)
                if aligned := [point for point in plan.points if point.point.aligned]:
                    _await(reading([point.train for point in aligned], TrainInputs), work, scored)
                    train(aligned, work)

            def score_all(training: Callable[[], bool], stopped: Callable[[], bool]) -> None:
                try:
                    score([asking, measuring], work, training, stopped)
                finally:
                    scored.set()

            _at_once(train_all, score_all, dog)
        io.delete(work.scratch)
        after()
        return {id: reason for id, reason in work.failed.items() if id not in work.stopped}


def _await(points: Sequence[Step[TrainInputs]], work: Work, scored: threading.Event) -> None:
    """Wait until the answers are there, or have failed, that these points learn from, while they are scored."""
    answers = [step.inputs.pairs for step in points if step.inputs.pairs]
    while work.missing(answers) and not scored.wait(LOOK):
        pass
    for step in work.missing(answers):  # what ended scoring is told there
        work.fail(step, "scoring has stopped", quiet=True)


def _at_once(
    train: Callable[[], None], score: Callable[[Callable[[], bool], Callable[[], bool]], None], progress: Progress
) -> None:
    """Train points here, and score what is there in another thread until all of it is."""
    trained, stop = threading.Event(), threading.Event()

    def tell(scored: Future[None]) -> None:
        if (error := scored.exception()) and not (trained.is_set() or stop.is_set()):
            progress.say(f"[red]scoring has stopped[/], points go on: {escape(str(error))}")

    with ThreadPoolExecutor(1, "kdray-score") as thread:
        scored = thread.submit(score, lambda: not trained.is_set(), stop.is_set)
        scored.add_done_callback(tell)
        try:
            train()
            trained.set()
            scored.result()
        finally:
            stop.set()


@contextlib.contextmanager
def _insistent_interrupt() -> Iterator[None]:
    """Ctrl-C ends the block even where a library swallows it: it comes again every few seconds until it gets
    through.
    """
    timers: list[threading.Timer] = []

    def interrupt(signum: int, frame: Any) -> None:
        timer = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGINT, previous)
