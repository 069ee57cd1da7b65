#include "tools/batch_scripts.h"

#include <cctype>
#include <chrono>
#include <cstdlib>

#include "absl/strings/str_replace.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "tools/mpirun.h"

namespace trireme {
namespace {

// As Kubernetes names things: lower case letters, digits and dashes.
std::string DnsName(const std::string& name) {
  std::string text;
  for (const unsigned char c : name) {
    const bool plain = std::isalnum(c) != 0 && c < 128;
    if (plain) {
      text += static_cast<char>(std::tolower(c));
    } else if (!text.empty() && text.back() != '-') {
      text += '-';
    }
  }
  text = text.substr(0, 50);
  while (!text.empty() && text.back() == '-') text.pop_back();
  if (text.empty()) return "trireme";
  // The operator names a service like the job, which begins with a letter.
  return std::isdigit(static_cast<unsigned char>(text[0])) != 0 ? "run-" + text
                                                                : text;
}

// A string as YAML's double quotes take it, which are JSON's.
std::string Quoted(const std::string& text) {
  return fmt::format(
      "\"{}\"", absl::StrReplaceAll(
                    text, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}));
}

}  // namespace

std::string SlurmScript(const BatchJob& job,
                        const std::vector<std::string>& options) {
  std::string text = fmt::format(
      "#!/bin/bash\n"
      "#SBATCH --job-name={}\n"
      "#SBATCH --nodes={}\n"
      "#SBATCH --ntasks={}\n"
      "#SBATCH --ntasks-per-node={}\n"
      "#SBATCH --output={}-%j.txt\n"
      "#SBATCH --open-mode=append\n"
      "#SBATCH --requeue\n"
      "#SBATCH --signal=B:USR1@{}\n",
      DnsName(job.name), job.nodes, job.nodes * job.ranks_per_node,
      job.ranks_per_node, DnsName(job.name),
      std::chrono::duration_cast<std::chrono::seconds>(Timeouts().warning)
          .count());
  for (const std::string& option : options) {
    text += fmt::format("#SBATCH {}\n", option);
  }
  return text + fmt::format("exec {}\n", ShellText(job.launch));
}

absl::Status QueueSlurmJobAgain(const std::string& id) {
  if (std::system(ShellText({"scontrol", "requeue", id}).c_str()) == 0) {
    return absl::OkStatus();
  }
  return Unavailable("Slurm does not queue job {} again: scontrol failed", id);
}

std::string KubernetesJob(const BatchJob& job, const std::string& image) {
  // The operator writes the hosts' file, and has mpirun reach them by ssh.
  std::vector<std::string> command = job.launch;
  command.insert(command.end(),
                 {"--hostfile=/etc/mpi/hostfile", "--listen=$(POD_IP):0"});
  std::string words;
  for (const std::string& word : command) {
    words += fmt::format("                - {}\n", Quoted(word));
  }
  return fmt::format(
      "apiVersion: kubeflow.org/v2beta1\n"
      "kind: MPIJob\n"
      "metadata:\n"
      "  name: {name}\n"
      "spec:\n"
      "  slotsPerWorker: {ranks}\n"
      "  runPolicy:\n"
      "    cleanPodPolicy: Running\n"
      "    backoffLimit: 3\n"
      "  mpiReplicaSpecs:\n"
      "    Launcher:\n"
      "      replicas: 1\n"
      "      template:\n"
      "        spec:\n"
      "          restartPolicy: OnFailure\n"
      "          containers:\n"
      "            - name: launcher\n"
      "              image: {image}\n"
      "              env:\n"
      "                - name: POD_IP\n"
      "                  valueFrom: {{ fieldRef: {{ fieldPath: status.podIP }} "
      "}}\n"
      "              command:\n"
      "{words}"
      "    Worker:\n"
      "      replicas: {nodes}\n"
      "      template:\n"
      "        spec:\n"
      "          containers:\n"
      "            - name: worker\n"
      "              image: {image}\n",
      fmt::arg("name", Quoted(DnsName(job.name))),
      fmt::arg("ranks", job.ranks_per_node), fmt::arg("image", Quoted(image)),
      fmt::arg("words", words), fmt::arg("nodes", job.nodes));
}

}  // namespace trireme
