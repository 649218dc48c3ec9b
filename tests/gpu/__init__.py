"""What only a GPU can show. Every check stands alone, and notes its figures: `make test-gpu` ends with all of them."""

import pytest
import torch

NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
