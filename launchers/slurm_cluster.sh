#!/usr/bin/env bash
# A small SLURM cluster on this machine, to try the launcher and to test it: one controller and several nodes, each a
# process of its own with its own port. Everything lies below one folder; nothing of the system is touched.
#
#   launchers/slurm_cluster.sh start DIR [NODES] [CPUS] [PORT]    then: export SLURM_CONF=DIR/slurm.conf
#   launchers/slurm_cluster.sh stop DIR
#
# Needs Debian's packages slurm-wlm and munge, and root. Jobs of the partition `high` preempt those of `low`, the default.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# -ge 2 ] || usage
dir=$(realpath -m "$2")
export SLURM_CONF=$dir/slurm.conf  # never empty: clients then look for a controller by DNS, for a minute

start() {
  local nodes=$1 cpus=$2 port=$3 host node
  host=$(hostname -s)
  rm -rf "$dir"/{state,spool-*}  # of an earlier cluster, which may have had another name
  mkdir -p "$dir"/{munge,state,log}
  chmod 0711 "$dir/munge"  # munged refuses other modes
  (umask 077 && head -c 128 /dev/urandom > "$dir/munge/key")
  munged --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/munged.pid" \
    --log-file="$dir/munge/munged.log" --seed-file="$dir/munge/seed"

  cat > "$SLURM_CONF" <<CONF
ClusterName=trial$port
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Credentials expire soon: until they have, a job that is put back in the queue is not started again.
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
# No accounting daemon: sacct fails here, as it does on some real clusters.
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job is warned by the signal it asked for, and killed after GraceTime.
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=2
MinJobAge=7200
ReturnToService=2
SlurmdTimeout=20
PartitionName=low Nodes=n[1-$nodes] Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n[1-$nodes] PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
CONF
  for node in $(seq "$nodes"); do
    echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + node)) CPUs=$cpus RealMemory=64000"
  done >> "$SLURM_CONF"

  slurmctld
  for node in $(seq "$nodes"); do slurmd -N "n$node"; done
  for _ in $(seq 300); do
    [ "$(sinfo -h -N -p low -t idle -o %N 2> /dev/null | sort -u | wc -l)" = "$nodes" ] && return
    sleep 0.1
  done
  echo "the cluster did not come up; see $dir/log" >&2
  sinfo >&2
  return 1
}

stop() {
  [ -f "$SLURM_CONF" ] || return 0
  if [ -f "$dir/slurmctld.pid" ]; then
    scancel --user=root || true
    scontrol shutdown || true  # the controller and every node
  fi 2> /dev/null
  local file pid
  for _ in $(seq 50); do compgen -G "$dir/slurm*.pid" > /dev/null || break; sleep 0.1; done
  for file in "$dir"/slurm*.pid "$dir"/munge/munged.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 30); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2> /dev/null || true
    rm -f "$file"
  done
}

case $1 in
  start) start "${3:-2}" "${4:-4}" "${5:-17200}" ;;
  stop) stop ;;
  *) usage ;;
esac
