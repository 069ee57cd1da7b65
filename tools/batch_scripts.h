// A launch as other schedulers take it: a batch script of Slurm's, an MPIJob of
// Kubernetes'.

#ifndef TRIREME_TOOLS_BATCH_SCRIPTS_H_
#define TRIREME_TOOLS_BATCH_SCRIPTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace trireme {

struct BatchJob {
  std::string name;
  int64_t nodes = 1;
  int64_t ranks_per_node = 1;
  // The launch to run there, which goes on with what the run's folder has.
  std::vector<std::string> launch;
};

// For sbatch: one task a rank; what it prints goes to NAME-NUMBER.txt where
// sbatch is called. The launch is told two minutes before the time is up
// (SIGUSR1), saves, and has itself queued again. `options`: of sbatch, as
// "--partition=gpu".
std::string SlurmScript(const BatchJob& job,
                        const std::vector<std::string>& options);

// Has Slurm end its running job `id`, and run it again when it is its turn.
absl::Status QueueSlurmJobAgain(const std::string& id);

// For kubectl apply, where kubeflow's MPI operator (API v2beta1) runs. `image`
// has this program and sshd.
std::string KubernetesJob(const BatchJob& job, const std::string& image);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BATCH_SCRIPTS_H_
