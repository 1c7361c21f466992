"""The report: what a person looks at to judge a run."""
