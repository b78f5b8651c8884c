#!/bin/bash
# One study on all GPUs of several nodes: sbatch slurm.sh. Where the time did not suffice, the same again goes on.
#SBATCH --job-name=vittle
#SBATCH --time=04:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
# One kind of GPU on all nodes (a100:4), since latencies are compared, and nobody beside them, who would show in the timings.
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --mem=0
# Two to three minutes before the end, to this script alone.
#SBATCH --signal=B:TERM@120
# A node that fails takes its workers along, not the job.
#SBATCH --no-kill

set -euo pipefail

source "$HOME/vittle/.venv/bin/activate" # the same installation on every node

# Ray runs code for whoever reaches its ports, so it asks for a token. The nodes get it with the environment.
RAY_AUTH_TOKEN=$(ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_worker_niceness=0 # workers measure time, so they give way to nothing

ip=$(hostname --ip-address) # one that the other nodes reach this one by
ip=${ip%% *}
others=$((SLURM_JOB_NUM_NODES - 1))
gpus=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
here=(--num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="$SLURM_GPUS_ON_NODE" --disable-usage-stats)

ray start --head --node-ip-address="$ip" --port=6379 --include-dashboard=false "${here[@]}"
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$SLURMD_NODENAME" --gpus-per-node="$SLURM_GPUS_ON_NODE" \
        --cpu-bind=none --no-kill ray start --address="$ip:6379" --block "${here[@]}" &
fi
timeout 300 python -c "
import time, ray
ray.init('$ip:6379', log_to_driver=False)
while ray.cluster_resources().get('GPU', 0) < $gpus:
    time.sleep(1)
" || echo "not all of $gpus GPUs are there; going on with those that are" >&2

# The database's password is in ~/.pgpass: Ray shows the command line of whoever joins it.
vittle launch --ray-address "$ip:6379" --study deit-small \
    --model deit_small_patch16_224.fb_in1k --data /scratch/imagenet/val \
    --device cuda --batch-size 32 --latency-budget 60% --trials 200 \
    --workers "$gpus" --gpus-per-worker 1 \
    --storage postgresql+psycopg://vittle@db.example.org/vittle &
launch=$!
trap 'kill -TERM "$launch"' TERM

status=0
wait "$launch" || status=$?
while kill -0 "$launch" 2>/dev/null; do # a signal ends `wait`, not the launch
    status=0
    wait "$launch" || status=$?
done
exit "$status" # 130: interrupted, to be submitted again. Slurm ends Ray with this script
