"""Figures of a sequence of tasks: pure functions, torchmetrics classes over them, a readout's collection.

Nothing is imported here, so that :mod:`mmcl.metrics.memory_area` opens without torch.
"""
