"""What the package promises about speed, measured: each module asks one question.

A benchmark module has `NAME`, `QUESTION`, a frozen `Size` and `SIZES` of it, `sides` (builds the inputs and returns
what is compared, by name) and `run` (measures, and returns the rows of the table).
"""
