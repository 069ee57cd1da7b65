#!/bin/bash
# Runs a program on several ranks of this machine: mpi_run.sh RANKS PROGRAM
# [ARGUMENT...]. Fails when any rank does; works as root, in containers, with
# fewer cores than ranks and without a network.
set -euo pipefail

ranks=$1
shift

# OpenMPI puts sockets into its session directory, and a socket's path must
# not exceed 107 characters, which Bazel's TEST_TMPDIR does.
TMPDIR=$(mktemp -d /tmp/trireme.XXXXXX)
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export OMPI_MCA_btl=${OMPI_MCA_btl:-self,vader}
# Containers often forbid the copy from process to process (ptrace), and have
# little /dev/shm.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_btl_vader_backing_directory=$TMPDIR
export OMPI_MCA_mpi_yield_when_idle=1
# hwloc, looking for graphics, would ask for X displays at localhost, for which
# each rank waits seconds where that name does not resolve.
export HWLOC_COMPONENTS=-gl
export OMPI_MCA_plm=isolated # these ranks need no ssh

# GoogleTest's marker is one file for all ranks; mpirun itself reports a rank
# that ends early.
unset TEST_PREMATURE_EXIT_FILE

# Ends the ranks before Bazel's own timeout, which would kill mpirun only.
timeout --kill-after=5 "$((${TEST_TIMEOUT:-300} * 9 / 10))" \
  mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$ranks" "$@" \
  </dev/null
