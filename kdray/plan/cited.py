"""The answers with citations that aligned points learn from."""

from __future__ import annotations

from kdray.plan.asked import asked_of, decoding_of
from kdray.plan.inputs import GenerateInputs
from kdray.plan.steps import Plan, Step, make_step, slug_of
from kdray.spec import declare
from kdray.spec.components import bind_use
from kdray.spec.decodings import aligned_by, decoding_label
from kdray.spec.sections.base import Use
from kdray.spec.sections.training import AlignSection
from kdray.store import Outer


def cited_answers(plan: Plan, model: Step, section: AlignSection, outer: Outer) -> Step[GenerateInputs]:
    """A model's answers to training rows, with citations, from which it is to learn."""
    given = {"limit": section.answers, "max_new_tokens": section.max_new_tokens}
    task = bind_use(Use.model_construct(name="train_answers", params=given), declare.Task, "align")
    use, asked = aligned_by(section), asked_of(plan, task, "align", outer)
    params = asked.params and asked.params | {"decoding": decoding_of(use, {})}
    slug = f"{model.slug}-{slug_of(task.name)}-{decoding_label(use)}"
    return make_step("generate", slug, params, GenerateInputs(model=model, data=asked.data))
