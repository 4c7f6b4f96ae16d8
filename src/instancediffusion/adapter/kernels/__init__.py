"""How layers of a network are computed on a processor: the same numbers from fewer or cheaper operations."""

from .blocked_attention import attention, takes_blocks
from .convolution import QuickConvolution
from .exporting import is_exporting
from .feed_forward import QuickFeedForward

__all__ = ["QuickConvolution", "QuickFeedForward", "attention", "is_exporting", "takes_blocks"]
