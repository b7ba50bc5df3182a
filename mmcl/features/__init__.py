"""Features of frozen encoders: views of images, a cache keyed by content, and files of a user's own features.

Nothing is imported here.
"""
