"""Balancing texts by concept, as MetaCLIP 2 curates captions (arXiv 2507.22062): metadata, matches, thresholds."""
