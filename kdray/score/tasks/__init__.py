"""One task a file.

`KIND` says how a task is run:
    generate   `examples(...)` gives prompts and references; `METRICS` score the answers
    choices    an lm-eval task: `CONFIG` is its official file, or `documents(...)` and `config` give one of ours
    heldout    log-likelihoods on the grid's own held-out rows
`SHORT` maps each metric to its name in tables and MLflow (at most 12 characters, no slash or dash);
`FACTUAL_RATE` says that its answers are held against a text, so that a lens can look at them;
`LOWER_IS_BETTER` lists the metrics that should fall.
"""
