"""What is kept about the past: rows grouped by class, how many, which ones, and what they cost in bytes."""
