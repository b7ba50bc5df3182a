"""The verbs of ``mmcl``, one module for each family; every module adds its verbs to the parser of ``mmcl.cli``."""
