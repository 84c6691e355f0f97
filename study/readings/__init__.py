"""Numbers of records: read, resampled, compared with the twin. gate.py is the one file that may compute a
run.
"""
