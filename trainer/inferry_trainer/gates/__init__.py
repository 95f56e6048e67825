"""What a model must pass before it may be published, and again whenever it is verified; one gate a file.

A gate is a function: it takes what it judges, measures, and returns what it measured, or raises `GateError`.
None of them knows where models come from or where they go.
"""
