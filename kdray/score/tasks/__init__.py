"""One task a file.

`KIND` says how a task is run:
    generate   a function from a row to a `Question`; `METRICS` and those of the grid score the answers
    choices    an lm-eval task: `CONFIG` is its official file, or `documents(...)` and `config` give one of ours;
               `NAMED`: the task is written `lm_eval:NAME`; `CONFIDENCE`: the report shows how sure models are of wrong answers
    heldout    log-likelihoods on the grid's own held-out rows
`GIVES` says what metrics find in a generation task: `reference`, `source`, `wrong`, and whether answers are `short`.
`FORMS` are its plain-text prompts by id, beside `template` (the grid's) and `chat` (the model's own).
`ROWS`: it asks the grid's own prompts, `unseen` ones or those that are trained on (`train`).
`COLUMNS` must be there; `a|b` is one column under either name.
`SHORT` maps each metric to its name in tables and MLflow (at most 12 characters, no slash or dash);
`FACTUAL_RATE` says that its answers are held against a text, so that a lens can look at them;
`LOWER_IS_BETTER` lists the metrics that should fall.
"""
