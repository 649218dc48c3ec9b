"""Lookback Lens: does a model look back at its context while it writes? (chapter 4 of the thesis; arXiv 2407.07071)"""

from kdray.lens.ratios import RULE, Passage, lookback_ratios, ratios_of, token_logits, watch

__all__ = ["Passage", "RULE", "lookback_ratios", "ratios_of", "token_logits", "watch"]
