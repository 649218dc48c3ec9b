"""The tables as files: every cell of them, whatever is in a name."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas

import kdray
from kdray.report.page.exports import escaped, latex, write_exports
from kdray.report.page.tables import Cell, Column, Line, Sheet
from kdray.spec.metric_names import MetricName
from tests.report.bench import Bench

ROUGE, KL = MetricName.parse("xsum/rougeL"), MetricName.parse("heldout_loss/kl")
SHEET = Sheet(
    "Answers",
    "mean ± standard deviation over runs",
    [("xsum", [Column(ROUGE, "rougeL", "↑", True)]), ("heldout_loss", [Column(KL, "kl", "↓", False)])],
    [
        Line("KD 1 (a_b & 5%)", "2/2", [Cell("1.00", "0.10", 2, True, "2 ± 0.1"), Cell()]),
        Line("teacher", "", [Cell("3.00"), Cell("0.00")], reference=True),
    ],
)


def test_latex_has_the_tables_form_and_nothing_that_it_would_trip_over() -> None:
    assert latex(SHEET).splitlines() == [
        "% Answers: mean +- standard deviation over runs",
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r" &  & \multicolumn{1}{c}{xsum} & \multicolumn{1}{c}{heldout\_loss} \\",
        r"\cmidrule(lr){3-3}\cmidrule(lr){4-4}",
        r"Method & runs & rougeL $\uparrow$ & kl $\downarrow$ \\",
        r"\midrule",
        r"KD 1 (a\_b \& 5\%) & 2/2 & \textbf{1.00} $\pm$ 0.10 & -- \\",
        r"\quad published &  & 2 $\pm$ 0.1 &  \\",
        r"\midrule",
        r"teacher &  & 3.00 & 0.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert escaped("\\input{x}\n^~") == r"\textbackslash{}input\{x\} \textasciicircum{}\textasciitilde{}"


def test_every_cell_is_in_the_csv(tmp_path: Path) -> None:
    write_exports([SHEET], None, tmp_path)
    rows = list(csv.DictReader((tmp_path / "tables.csv").open()))
    assert [(row["method"], row["column"], row["mean"], row["n"], row["best"], row["published"]) for row in rows] == [
        ("KD 1 (a_b & 5%)", "xsum_rougeL", "1.00", "2", "1", "2 ± 0.1"),
        ("KD 1 (a_b & 5%)", "held_kl", "", "", "0", ""),
        ("teacher", "xsum_rougeL", "3.00", "", "0", ""),
        ("teacher", "held_kl", "0.00", "", "0", ""),
    ]
    assert not (tmp_path / "results.parquet").exists()


def test_every_score_is_in_the_parquet_file(tmp_path: Path) -> None:
    axes = {"lr": [1e-4], "batch": [4], "alpha": [0], "seed": [0]}
    bench = Bench(tmp_path / "grid", {"axes": axes}, items=5).finish()
    write_exports([], bench.path, tmp_path)
    frame = kdray.results(bench.path).frame()
    assert len(frame) > 5
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "results.parquet"), frame)
