"""teach: the teacher, fine-tuned on the prepared data before it labels them; a TorchTrainer job of its own."""

from __future__ import annotations

from kdray.plan import Step
from kdray.stages.train import settings_of, watch
from kdray.stages.work import Work
from kdray.stages.job import CURVE, Job, make_trainer

VERSION = 1


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
                    soft_labels=None,
                    form="",
                    store=work.store.root,
                    attempt=attempt,
                    exports=(),
                    final=True,
                    lora_rank=step.params.get("rank"),
                    micro_batch=runtime.micro_batch,
                    checkpoint_every=runtime.checkpoint_every,
                    workers=work.resources.workers,
                    threads=work.resources.teacher_threads,
                    use_gpu=work.resources.gpus > 0,
                )
                with watch("teach", [job], work):
                    make_trainer(job).fit()
                files = [path for path in attempt.path.iterdir() if path.is_file()]
                files = [path for path in files if path.name == CURVE or path.suffix in {".json", ".safetensors", ".jinja", ".model", ".txt"}]
                work.seal(step, attempt, [f for f in files if "snapshot" not in f.name], workers=job.workers)
