"""The models of a grid: student and teachers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kdray.spec.errors import InputError
from kdray.spec.marks import Enters
from kdray.spec.sections.base import ENTERS, Ref, Section
from kdray.spec.sections.training import Tune


class Model(Section):
    """A language model, causal or as a student an encoder-decoder; `drop_layers: [12, 20]` cuts layers 12 to 19 out."""

    model: Annotated[Ref, Enters(by_content=True)] = Field(
        description="`hf:org/name@commit`, `file:` and a folder or a GGUF file, or a GGUF file in a `wheel:`"
    )
    drop_layers: Annotated[Annotated[list[int], Field(min_length=2, max_length=2)] | None, ENTERS] = Field(
        default=None, description="layers to cut out of it: `[12, 20]` cuts layers 12 to 19"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.drop_layers and not 0 <= self.drop_layers[0] < self.drop_layers[1]:
            raise InputError("drop_layers", f"{self.drop_layers}", "must be [first, end) with 0 <= first < end")
        return self


class TeacherSection(Model):
    """The model that gives the soft labels; without `tune` it is used as it is."""

    tune: Tune | None = Field(
        None, description="fine-tune it on the data first: the fields below, and those of `train` but `keep`"
    )
