"""One metric a file; `kdray.score.answers` says what a metric is.

`SCORES` names its numbers, the one that tables show first; all rates are in percent, and all rise with quality.
`NEEDS` says what a task must give: `reference`, `source`, `wrong` (answers), or that right answers are `short`.
Those that cost more than a look at the text:
    SLOW      measured by a step of its own, so that another metric never takes it again
    MODELS    parameters that are references to models, and whether their weights are needed
    SPANS     its rows have the hallucinated `spans` of an answer, as character offsets
    SAMPLES   parameters of answers that are drawn at random for this metric
    RUNTIME   parameters that change no number
    REQUIRES  Python packages that only this metric needs: `pip install 'kdray[metrics]'`
    NLTK_DATA data of nltk's, unless the parameter of that name is false
    ENDPOINT  it asks a server that the environment names
"""
