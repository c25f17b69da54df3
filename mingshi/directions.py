"""What scores are called, and which way a metric gets better: by its name with letters and digits alone."""

from __future__ import annotations

import re

TEST = "test"  # what the rows are called that a run is measured on at both ends

LOWER_IS_BETTER = {
    *("natspertoken", "perplexity", "bitsperbyte", "loss", "divergence", "absoluteerror", "weightedabsoluteerror"),
    *("brier", "logloss", "scaledece", "scaledbrier", "scaledlogloss"),
    *("meanabsoluteerror", "ece", "empty", "unfinished", "noroom", "repetition"),
}
HIGHER_IS_BETTER = {
    *("rouge1", "rouge2", "rougel", "rougelsum", "bleu", "chrf", "f1", "bertscore", "exactmatch"),
    *("accuracy", "weightedaccuracy", "rewardaccuracy", "rewardmargin", "likelihoodaccuracy"),
    *("accuracysum", "abovechance", "margin"),
    *("promptstrict", "promptloose", "instructionstrict", "instructionloose"),
    *("macrof1", "weightedf1", "microf1", "mcc", "rocauc", "pearson", "spearman"),
    *("weightedrocauc", "averageprecision", "weightedaverageprecision", "sliceaccuracy", "slicemacrof1"),
    *("precision", "recall", "macroprecision", "macrorecall", "weightedprecision", "weightedrecall"),
    *("tokenf1", "normalisedmatch", "bertscoref1", "bertscoreprecision", "bertscorerecall"),
}


def score_name(data: str, kind: str, metric: str) -> str:
    """What a score of a run is called: the test set's need no name of their rows."""
    return f"{kind}.{metric}" if data == TEST else f"{data}.{kind}.{metric}"


def plain_name(metric: str) -> str:
    """A metric's name with letters and digits alone: `rouge_L` and `rougeL` are the same."""
    return re.sub(r"[^a-z0-9]", "", metric.lower())


def is_better_higher(metric: str) -> bool | None:
    """None where the house does not know the metric; of a class's own metric, `f1.positive`, what holds of `f1`."""
    name = plain_name(metric.partition(".")[0])
    return True if name in HIGHER_IS_BETTER else False if name in LOWER_IS_BETTER else None
