"""The report that people look at: `report.html`, one file that needs no network, and the figures and tables in it as
files.

    evidence   what a grid's results say: the only place that asks the statistics
    drawing    how figures look; matplotlib's SVG as a part of a page
    panels     one figure each: effects, scores by arm, heat maps, scores over checkpoints, hallucination
               against ability
    gallery    which figures a grid has, and what they say in words
    tables     tables of means in the paper's form, with published figures beside
    cases      answers of two arms side by side, chosen by a rule
    states     what is done, what failed, what it cost
    origin     where the numbers are from: versions, git, ids
    page       all of it together, through `templates/`
    exports    the tables for other programs: csv, LaTeX, parquet

Names, answers and errors are somebody else's text: templates escape all of them, and the page's policy forbids scripts.
"""

PAGE = "report.html"
