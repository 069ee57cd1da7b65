// Jobs, plans and clusters, as text and as JSON, and what is made of them; the
// first byte says which.

#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/plan.pb.h"
#include "tests/fuzz/input.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.h"
#include "trainer/job/job.pb.h"

namespace trireme {
namespace {

// From text or JSON.
template <typename Config>
bool Parse(std::string_view input, bool json, Config& config) {
  static const ScratchFolder folder;
  if (!json) return ParseTextProto(input, "input", &config).ok();
  return ParseTextProtoFile(folder.Write("input.json", input), &config).ok();
}

void UseJob(Job job) {
  // Of a folder of latents the job reads what that says, which is no concern
  // here.
  if (job.data().has_latents() || !FillJobDefaults(job).ok()) return;
  (void)ResolveJob(job, {.samples = 100, .classes = 10});
}

void UsePlan(const Plan& plan) {
  const auto ranks = RanksOf(plan);
  if (!ranks.ok()) return;
  (void)ResolvePlan(plan, {.world_size = *ranks,
                           .global_batch = 64,
                           .mlp_hidden = 64,
                           .num_blocks = 8,
                           .heads = 4,
                           .experts = 4,
                           .expert_hidden = 64});
}

}  // namespace
}  // namespace trireme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  std::string_view input = TextOf(data, size);
  const int choice = TakeChoice(input, 7);
  const bool json = choice >= 3;
  Job job;
  Plan plan;
  Cluster cluster;
  switch (choice) {
    case 0:
    case 3:
      if (Parse(input, json, job)) UseJob(job);
      break;
    case 1:
    case 4:
      if (Parse(input, json, plan)) UsePlan(plan);
      break;
    case 2:
    case 5:
      if (Parse(input, json, cluster)) (void)ResolveCluster(cluster);
      break;
    default:
      if (ApplyOverride(std::string(input), &job).ok()) UseJob(job);
  }
  return 0;
}
