"""Batch jobs: a folder of pictures in, Parquet files out; a job that was interrupted resumes.

`pictures` lists the folder, `plan` says what the job is, `store` keeps plan, parts and errors on
disk, `predict` prepares and sends one chunk, `job` drives them, `command` is `inferry batch`.
"""
