"""Batch jobs: pictures in, files of answers out, each exactly once; a job that was interrupted resumes.

`inputs` (`folder`, `archives`, `tables`, `idx`) yield `records`; `survey` lists them and compares them with `receipts`
of what is done; `plan` says what the job is. `opening` checks all of it, `job` runs it: `decoding` (`decode`, in a
`decoder_process`) makes pixels, `predict` or `onnx_target` answers, as `window` allows, `parts` gathers, `formats`
makes bytes, `store` commits.
"""
