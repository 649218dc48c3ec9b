"""Whether a student stops where a teacher does that labels its responses: an end that it learns and does not stop at
has it go on behind its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdray.spec.folders import end_of_text, ends_in, read_vocabulary
from kdray.spec.grid import Grid
from kdray.spec.points import expand


def end_notes(grid: Grid, folders: Mapping[str, Path]) -> list[str]:
    """What there is to be warned of, of the models in `folders`, by role. A teacher that is tuned on the rows learns
    their end, and one with another tokenizer has its end brought to the student's.
    """
    if "student" not in folders or grid.soft_labels.align or not any(point.alpha > 0 for point in expand(grid)):
        return []
    student, notes = folders["student"], []
    for role, folder in folders.items():
        more = set() if role == "student" or grid.all_teachers[role].tune else ends_in(folder) - ends_in(student)
        if not more:
            continue
        vocabulary, own = read_vocabulary(student, "student.model") or {}, end_of_text(student)
        named = {id: text for text, id in vocabulary.items() if id in more and text != own}
        if named or not vocabulary:
            shown = ", ".join(repr(named.get(id, id)) for id in sorted(named or more))
            notes.append(
                f"{grid.models()[role][0]}.model: it may end a response by {shown}, at which the student does not stop:"
                " what learns that from soft labels goes on behind its answer. Name it as eos_token_id, beside the"
                " student's own, in the generation_config.json of student.model, or tune the teacher"
            )
    return notes
