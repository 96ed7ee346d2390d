"""One file a flow: stages, retries and reports around a job. The only place that imports Prefect."""
