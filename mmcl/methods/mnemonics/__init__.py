"""Mnemonics Training: exemplars whose pixels are learnt (Liu, Su, Liu, Schiele, Sun, CVPR 2020)."""
