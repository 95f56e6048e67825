"""Batch jobs: pictures in, files of answers out, each exactly once; a job that was interrupted resumes.

`folder` yields `records`; `survey` lists them and compares them with `receipts` of what is done; `plan` says what
the job is. `opening` checks all of it, `job` runs it: `decoding` (`decode`) makes pixels, `predict` asks for their
probabilities as `window` allows, `parts` gathers them, `formats` makes bytes of them, `store` commits those.
"""
