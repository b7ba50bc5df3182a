"""The Memory-Modular Learner: answers by a memory that can be replaced (Kang et al., TMLR 2025)."""
