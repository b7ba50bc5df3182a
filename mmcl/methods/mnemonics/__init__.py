"""Mnemonics Training: exemplars whose pixels are learned (Liu, Su, Liu, Schiele, Sun, CVPR 2020)."""
