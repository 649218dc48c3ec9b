"""One task a file.

`KIND` says how a task is run:
    generate   `examples(...)` gives prompts and references; `METRICS` score the answers
    choices    an lm-eval task: `CONFIG` is its official file, or `documents(...)` and `config` give one of ours;
               `NAMED`: the task is written `lm_eval:NAME`; `CONFIDENCE`: the report shows how sure models are of wrong answers
    heldout    log-likelihoods on the grid's own held-out rows
`SHORT` maps each metric to its name in tables and MLflow (at most 12 characters, no slash or dash);
`LOWER_IS_BETTER` lists the metrics that should fall.
"""
