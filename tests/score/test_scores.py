"""Multiple choice against the tool that everyone trusts."""

from __future__ import annotations

import json

from kdray.score.tasks.mmlu_bundled import documents


def test_mmlu_questions_are_read_with_their_answers(tmp_path):
    text = (
        "The following are multiple choice questions.\n\nQ: What is 1+1?\n(A) 1 (B) 2 (C) 3 (D) 4\n"
        "A: Let's think step by step. It is two. The answer is (B).\n\n"
        "Q: A very long question " + "word " * 40 + "?\n(A) a (B) b (C) c (D) d\nA: Let's think. The answer is (A).\n\n"
    )
    path = tmp_path / "cot.json"
    path.write_text(json.dumps({"maths": text}))
    found = list(documents(path, max_words=30))
    assert found == [{"subject": "maths", "question": "What is 1+1?", "choices": ["1", "2", "3", "4"], "answer": 1}]
    assert len(list(documents(path, max_words=100))) == 2
    listed = "Q: What is 2+2?\n(A) 1\n(B) 4\n(C) 3\n(D) 2\nA: Count. The answer is (B).\n\n"
    path.write_text(json.dumps({"maths": listed + text}))
    found = [one["question"] for one in documents(path, max_words=1000)]
    assert found[0] == "What is 1+1?", "a question whose choices stand on lines is left out, and takes none of the next"
    assert len(found) == 2
