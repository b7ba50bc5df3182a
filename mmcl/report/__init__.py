"""Results and tables for people: the console, one HTML page, pictures, files for papers, the tables of the README.

Imports neither torch nor lightning, so that tables open in a second.
"""
