"""The MLflow view of a grid: one experiment a grid, one flat run a point and a reference model, one with the report.

    address     where the view is kept and how to look at it
    runs        what every run should hold, read from the store
    view        the charts that the experiment's page opens with
    connection  the tracking store or server, and what it raises
    mirror      writes what is missing
    follow      does so while a run goes on

The view holds nothing of its own: `kdray track` rebuilds it from the store. Only files of this package import
mlflow, and they do so when it is first needed (several seconds).
"""
