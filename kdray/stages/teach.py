"""teach: the teacher, fine-tuned on the prepared data before it labels them; a TorchTrainer job of its own."""

from __future__ import annotations

import ray
from ray.exceptions import RayTaskError

from kdray.artifacts.curve import curve_file
from kdray.artifacts.notes import START, ended_early
from kdray.models.load import FILES
from kdray.orchestration.trainer import ON_HEAD, facts_of, fit, last_line, make_job
from kdray.orchestration.watch import watch
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import TrainInputs
from kdray.spec import declare

DECLARED = declare.Stage(version=2)
NOT_OURS = {START, "checkpoint_manager_snapshot.json"}


def teach(steps: list[Step[TrainInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        job = make_job(step, attempt, work, threads=work.resources.teacher_threads, final=True)
        with watch("teach", [job], work):
            # Not in this process: there Train would replace the handler of Ctrl-C for good.
            try:
                ray.get(ray.remote(num_cpus=0, resources=ON_HEAD)(fit).remote(job))
            except RayTaskError as error:
                work.fail(step, last_line(error))
                continue
        if reason := ended_early(attempt.path):
            work.fail(step, reason)
            continue
        # Beside the model lie Ray Train's own files and the resume state: neither is part of the artifact.
        files = [path for pattern in FILES for path in attempt.path.glob(pattern)]
        files = [path for path in files if path.name not in NOT_OURS]
        work.seal(step, attempt, sorted({*files, curve_file(attempt.path)}), **facts_of(attempt))
