"""The grid file as a whole; its sections are in `kdray.spec.sections`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from kdray.spec.sections.base import SELECTS, SHOWN, Section, Slug, Use
from kdray.spec.sections.data import Augment, Data, SoftLabelsSection
from kdray.spec.sections.models import Model, TeacherSection
from kdray.spec.sections.points import Axes, PointSpec
from kdray.spec.sections.running import Report, Runtime
from kdray.spec.sections.scoring import LensSection, Scoring
from kdray.spec.sections.training import BY_NAME, AlignSection, ObjectiveSection, SearchSection, Train


class Grid(Section):
    """A whole experiment: one family of models, one data set, one grid."""

    name: Annotated[Slug, SHOWN] = Field(description="of the grid, and of its MLflow experiment")
    question: Annotated[str, SHOWN] = Field("", description="what it is to answer; printed in the report")
    family: Annotated[Slug, SELECTS] = Field(description="of the models; one file holds one family")
    teacher: TeacherSection | None = Field(
        None,
        description=(
            "the model that gives soft labels and answers; may be left out if every alpha is 0 and all labels are gold"
        ),
    )
    teachers: dict[Slug, TeacherSection] = Field(
        default={},
        description=(
            "instead of `teacher`: several by name, each as above; an axis of the grid (see"
            " docs/grid.md#several-teachers)"
        ),
    )
    ensembles: Annotated[dict[Slug, Annotated[dict[Slug, PositiveFloat], Field(min_length=2)]], SELECTS] = Field(
        default={}, description="more teachers by name: weights of some `teachers`, whose probabilities are averaged"
    )
    student: Model = Field(description="the model that is trained")
    data: Data = Field(description="instruction data and how they become tokens")
    soft_labels: SoftLabelsSection = Field(SoftLabelsSection(), description="how the teacher's outputs are kept")
    objective: ObjectiveSection = Field(ObjectiveSection(), description="what is minimised")
    augment: Augment = Field(
        Augment(), description="the teacher's greedy answers, for points whose labels are not gold alone"
    )
    train: Train = Field(description="how every point trains")
    axes: Axes = Field(description="lists; every combination is a point")
    include: list[PointSpec] = Field(
        [],
        description=(
            "more points, one by one: `{lr: 1e-5, batch: 4, alpha: 1, seed: 0, labels: gold}`; the last two may be left"
            " out, and so may `smoothing`, `temperature`, `on_policy`, `rows` and `aligned`; with `teachers`, `teacher`"
            " too"
        ),
    )
    exclude: list[PointSpec] = Field([], description="points of the axes to leave out, written likewise")
    align: AlignSection | None = Field(
        None, description="how points with `axes.aligned: true` train on (see docs/selfcite.md)"
    )
    search: Annotated[SearchSection | None, BY_NAME] = Field(
        None,
        description=(
            "early stopping, `asha`: points that fall behind others of their arm leave off"
            " (docs/cluster.md); by default every point trains to its end"
        ),
    )
    score: Scoring = Field(description="what is measured on which checkpoints")
    lens: LensSection | None = Field(None, description="a Lookback Lens for factual rates")
    report: Report = Field(Report(), description="how the tables compare points")
    runtime: Runtime = Field(
        description="where and how it runs: nothing here changes an id or, but for rounding, a number"
    )

    @property
    def max_sampled(self) -> int:
        """Where a response that the student samples as it trains is cut, in tokens."""
        return self.objective.sampling.max_new_tokens or self.data.max_length - self.data.max_prompt

    @property
    def all_teachers(self) -> dict[str, TeacherSection]:
        """The teachers by name; the only one of `teacher` is called `teacher`."""
        return {"teacher": self.teacher} if self.teacher else self.teachers

    def models(self) -> dict[str, tuple[str, Model]]:
        """Where in the file every model stands, and the model, by its role: `student`, or a teacher's name."""
        where = "teacher" if self.teacher else "teachers.{}"
        return {"student": ("student", self.student)} | {
            name: (where.format(name), t) for name, t in self.all_teachers.items()
        }

    @classmethod
    def only_scoring(cls, name: str, score: Scoring, template: Use, lens: LensSection | None, runtime: Runtime) -> Grid:
        """A grid without points, for models that are only scored: it lacks every section that training needs."""
        return cls.model_construct(
            name=name,
            question="How do these models score?",
            family="models",
            teacher=None,
            teachers={},
            ensembles={},
            data=Data.model_construct(template=template),
            score=score,
            lens=lens,
            report=Report(),
            runtime=runtime,
        )
