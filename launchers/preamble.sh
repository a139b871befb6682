# shellcheck shell=bash
# Sourced before a job on its node, and by the launchers before they submit. Lines for your cluster go here, e.g.
#   module load python/3.11 cuda/12.8
#   export HF_HOME=/shared/hf

here="$(dirname "${BASH_SOURCE[0]}")"
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f "$here/../.venv/bin/activate" ]; then
  source "$here/../.venv/bin/activate"
fi
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK" # as many threads as the job has cores, not as the node has
fi
