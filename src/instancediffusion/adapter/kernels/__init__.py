"""How layers of a network are computed on a processor: the same numbers from fewer or cheaper operations."""

from .blocked_attention import attention, takes_blocks
from .convolution import QuickConvolution

__all__ = ["QuickConvolution", "attention", "takes_blocks"]
