"""Results of runs beside the values that papers print: tables as data, result store, console and HTML.

Imports neither torch nor lightning, so that tables open in a second.
"""
