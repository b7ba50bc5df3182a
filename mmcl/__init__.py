"""mmcl: the experiment suite for memory-based visual classification."""

__version__ = "0.1.0"
