"""Texts about classes: label files, Wikipedia articles, sentences and their tokens.

Nothing is imported here; only :mod:`mmcl.texts.tokens` needs torch.
"""
