"""What users write by hand where they have no batch job: the peers that `bench.batch_jobs` measures beside ours."""
