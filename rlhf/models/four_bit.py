"""A base whose linear maps are packed in 4 bits (NF4 with doubly quantized scales: QLoRA, Dettmers 2023, arXiv 2305.14314).

bitsandbytes packs them while they are loaded, and computes in the model's data type. Adapters and heads over them stay as they are.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from rlhf.safe_files import ModelError

BITSANDBYTES = "bitsandbytes==0.50.2"


def quantization_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers is to load such a base.

    Args:
        dtype: the data type that is computed in.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"--load-in-4bit needs bitsandbytes: `pip install {BITSANDBYTES}`, or leave the option out.")
    # transformers leaves it without types.
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def is_4bit(model: PreTrainedModel) -> bool:
    """Whether a model was loaded so."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def is_packed(module: nn.Module) -> bool:
    """Whether a linear map holds its weights in another form than a matrix of numbers: only itself can multiply by them."""
    return isinstance(module, nn.Linear) and not module.weight.is_floating_point()


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from packing the weights anew for a kernel of some processors, through which no gradient flows.

    It does so in the first pass without gradients, because the base is in eval mode; adapters of lower layers would then learn nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # torch says of attributes that they are modules
