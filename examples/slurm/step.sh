# Sourced by the jobs: defines `step`, which runs one ogpsa command under srun and survives being preempted.
#
# Slurm sends SIGUSR1 to the batch script alone, some time before the limit (--signal=B:USR1@120). It goes on to srun and
# from there to all tasks, which save at the same step and exit with 75; then the job puts itself back into the queue,
# and the same command goes on from there.
set -o pipefail
eval "$SETUP"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$CPUS}

job='' signalled='' interrupted=''
trap 'signalled=1 interrupted=1; [ -z "$job" ] || kill -USR1 "$job"' USR1

step() { # OGPSA ARGUMENTS...
    local code=75
    if [ -z "$signalled" ]; then
        srun --kill-on-bad-exit=1 --cpus-per-task="$CPUS" ogpsa "$@" &
        job=$!
        # One that came before this line was handed on to nobody.
        [ -z "$signalled" ] || kill -USR1 "$job"
        while true; do
            interrupted=''
            wait "$job"
            code=$?
            # The signal interrupts wait, while the tasks are still saving.
            [ -n "$interrupted" ] || break
        done
        job=''
    fi
    # 75: saved and resumable. Above 128 after the signal: ended before it could answer, nothing half-written is left.
    if [ "$code" -eq 75 ] || { [ -n "$signalled" ] && [ "$code" -gt 128 ]; }; then
        echo "stopped with exit code $code, back into the queue"
        # Slurm ends this script when it takes the job back.
        scontrol requeue "$SLURM_JOB_ID" && sleep 60
    fi
    [ "$code" -eq 0 ] || exit "$code"
}
