"""teach: the teacher, fine-tuned on the prepared data before it labels them; a TorchTrainer job of its own."""

from __future__ import annotations

import ray
from ray.exceptions import RayTaskError

from kdray.models.load import FILES
from kdray.plan import Step
from kdray.stages.job import CURVE, DIVERGED, ON_HEAD, START, Job, facts_of, make_trainer
from kdray.stages.train import last_line, settings_of, watch
from kdray.stages.work import Work
from kdray.store import io

VERSION = 2
NOT_OURS = {START, "checkpoint_manager_snapshot.json"}


def teach(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step in steps:
        with work.claim([step]) as claimed:
            for _, attempt in claimed:
                runtime = work.plan.grid.runtime
                job = Job(
                    settings=settings_of(step.params | {"alpha": 0.0}),
                    model=work.folder(step.inputs["student"]),
                    data=work.folder(step.inputs["data"]),
                    soft_labels=(),
                    store=work.store.root,
                    attempt=attempt,
                    exports=(),
                    final=True,
                    engine=runtime.engine.model_dump(),
                    gradient_checkpointing=runtime.gradient_checkpointing,
                    micro_batch=runtime.micro_batch,
                    checkpoint_every=runtime.checkpoint_every,
                    workers=work.resources.workers,
                    threads=work.resources.teacher_threads,
                    use_gpu=work.resources.gpus > 0,
                    accelerator=work.resources.accelerator,
                    on_one_node=work.resources.on_one_node,
                )
                with watch("teach", [job], work):
                    # Not in this process: there Train would replace the handler of Ctrl-C for good.
                    try:
                        ray.get(ray.remote(num_cpus=0, resources=ON_HEAD)(_fit).remote(job))
                    except RayTaskError as error:
                        work.fail(step, last_line(error))
                        continue
                if reason := io.read_json(attempt.path / DIVERGED):
                    work.fail(step, reason)
                    continue
                # Beside the model lie Ray Train's own files and the resume state: neither is part of the artifact.
                files = [path for pattern in (*FILES, CURVE) for path in attempt.path.glob(pattern)]
                files = [path for path in files if path.name not in NOT_OURS]
                work.seal(step, attempt, sorted(set(files)), **facts_of(attempt))


def _fit(job: Job) -> None:
    make_trainer(job).fit()
