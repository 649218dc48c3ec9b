"""What headline metrics mean, in words for who meets them in a table."""

from __future__ import annotations

MEANINGS = {
    # of answers, beside a reference
    "rougeL": "ROUGE-L F1 with the reference, %",
    "paperL": "what the paper's tables call ROUGE-L, %",
    "chrf": "chrF2 with the reference, %",
    "meteor": "METEOR with the reference, %",
    "bert_f1": "BERTScore F1 with the reference, %",
    "f1": "words shared with a right answer, F1, %",
    "em": "answers that are a right one, %",
    "span_em": "answers that hold a right one, %",
    "truth": "answers nearer to a right than to a wrong one, %",
    # of answers, beside their source
    "fr": "factual rate: windows of an answer that the Lookback Lens takes for factual, %",
    "fr_auroc": "AUROC of the lens by this model's own attention, 50 being chance",
    "fc": "answers consistent with their source by HHEM, %",
    "factkb": "P(true) of an answer to its source by FactKB, %",
    "mini": "answers whose every sentence the source supports by MiniCheck, %",
    "lettuce": "answers without a hallucinated span by LettuceDetect, %",
    "judge": "answers that a large model finds true to their source, %",
    "selfchk": "agreement with more answers of the same model",
    "support": "nats a token that the source makes an answer likelier: a stand-in, which measures no facts",
    "selfcite": "nats a token by which the source's best sentences hold an answer",
    "cite_best": "nats a token that the best of several citations are worth",
    "cite_f1": "F1 of citations by a large model, %",
    # of questions and held-out rows
    "acc": "right choices, %",
    "acc_norm": "right choices, their likelihoods by length, %",
    "ece": "expected calibration error, %",
    "brier": "Brier score",
    "ce": "cross-entropy of held-out responses, nats a token",
    "kl": "divergence from the teacher on them, nats a token",
}
