"""What the Snakefile needs of the package: code inputs, logs of jobs, locks, Slurm."""
