// Faults that parallel training is known for, planted into the communication:
// the parity harness must see each. Losses of the first step are right under
// all of them, and Adam hides a wrong scale of a gradient for long: only the
// comparison of gradients tells.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/forwarding_testing.h"
#include "runtime/ops/pointwise.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;

struct Fault {
  // Of the communicator's name.
  std::string_view prefix;
  // The operations that go wrong: their kind, and part of their name.
  Kind kind = Kind::kAllReduce;
  std::string_view operation;
};

// What a faulty operation does instead of what it should.
using FaultyRun = Event (*)(Communicator& inner, Operation operation);

// The operation is left out: every rank goes on with its own part, or with
// whatever the memory holds.
Event Forget(Communicator& inner, Operation operation) {
  const Tensor& output = operation.output;
  const Tensor& input = operation.input;
  switch (operation.kind) {
    case Kind::kReduceScatter: {
      const int64_t rows = output.dim(0);
      output.CopyFrom(
          input.Slice(inner.rank() * rows, (inner.rank() + 1) * rows));
      break;
    }
    case Kind::kAllGather: {
      const int64_t rows = input.dim(0);
      for (int i = 0; i < inner.size(); ++i) {
        const Tensor slice = output.Slice(i * rows, (i + 1) * rows);
        if (slice.raw_data() != input.raw_data()) slice.CopyFrom(input);
      }
      break;
    }
    case Kind::kAllToAll:
      output.CopyFrom(input);
      break;
    default:
      break;
  }
  return Event();
}

// What arrives is `size` times what it should be: a sum that counts every rank
// as often as there are ranks.
Event ScaleBySize(Communicator& inner, Operation operation) {
  const Tensor output = operation.output;
  inner.Run(std::move(operation)).Wait();
  output.CopyFrom(Scale(output, inner.size()));
  return Event();
}

// A message arrives, but as zeros. What is received must not be waited for
// before others are sent what they wait for.
class LostMessage final : public Event::Work {
 public:
  LostMessage(Event event, Tensor data)
      : event_(std::move(event)), data_(std::move(data)) {}
  void Wait() override {
    event_.Wait();
    data_.FillZero();
  }
  bool Test() override { return event_.Test(); }

 private:
  Event event_;
  const Tensor data_;
};

Event Lose(Communicator& inner, Operation operation) {
  const Tensor output = operation.output;
  return Event(
      std::make_shared<LostMessage>(inner.Run(std::move(operation)), output));
}

ParityReport ReportWith(const GridCase& grid, const Fault& fault,
                        FaultyRun run) {
  return Compare(
      Record(OneRank(grid)), Record(grid, [&](CommunicatorFactory& real) {
        return std::make_unique<ForwardingWorld>(
            real, [&](Communicator& inner, Operation operation) {
              const bool faulty =
                  operation.kind == fault.kind && inner.size() > 1 &&
                  inner.name().starts_with(fault.prefix) &&
                  operation.name.find(fault.operation) != std::string::npos;
              return faulty ? run(inner, std::move(operation))
                            : inner.Run(std::move(operation));
            });
      }));
}

void ExpectSeen(const GridCase& grid, const Fault& fault,
                FaultyRun run = Forget) {
  const ParityReport report = ReportWith(grid, fault, run);
  EXPECT_FALSE(Within(report, ToleranceOf(grid.dtype)))
      << fault.operation << " over " << fault.prefix << " of " << grid.Name();
}

// A fault in gradients only, which the first step's loss does not show.
void ExpectSeenInGradients(const GridCase& grid, const Fault& fault,
                           FaultyRun run = Forget) {
  const ParityReport report = ReportWith(grid, fault, run);
  EXPECT_FALSE(Within(report, ToleranceOf(grid.dtype)))
      << fault.operation << " over " << fault.prefix << " of " << grid.Name();
  EXPECT_NEAR(report.losses[0], report.reference_losses[0], 1e-12);
}

TEST(PlantedFaultTest, WithoutAFaultTheWrapperChangesNothing) {
  const GridCase grid{.tp = 2, .pp = 2, .dp = 2};
  const ParityReport report = ReportWith(grid, {.prefix = "none"}, Forget);
  EXPECT_TRUE(Within(report, ToleranceOf(grid.dtype)));
}

// Gradients of head-norm scales and, with sequence parallelism, of all that is
// applied to local tokens are parts of a sum over tp.
TEST(PlantedFaultTest, AForgottenSumOfReplicatedParametersIsSeen) {
  const Fault fault{"tp", Kind::kAllReduce, "gradient bucket"};
  ExpectSeenInGradients({.tp = 2}, fault);
  ExpectSeenInGradients(
      {.tp = 2, .plan = PlanFromText("sequence_parallel: true")}, fault);
}

TEST(PlantedFaultTest, AForgottenSumOfInputGradientsIsSeen) {
  ExpectSeenInGradients({.tp = 2}, {"tp", Kind::kAllReduce, "input gradient"});
}

TEST(PlantedFaultTest, AForgottenSumOverReplicasIsSeen) {
  const Fault fault{"dp", Kind::kAllReduce, "gradient bucket"};
  ExpectSeenInGradients({.dp = 2}, fault);
  ExpectSeenInGradients({.pp = 2, .dp = 2}, fault);
}

TEST(PlantedFaultTest, AScaleByTpIsSeen) {
  for (const char* operation : {"input gradient", "Invariant to Replicate"}) {
    ExpectSeenInGradients({.tp = 2}, {"tp", Kind::kAllReduce, operation},
                          ScaleBySize);
  }
}

TEST(PlantedFaultTest, FaultsOfSequenceParallelismAreSeen) {
  const GridCase grid{.tp = 2, .plan = PlanFromText("sequence_parallel: true")};
  ExpectSeen(grid, {"tp activations", Kind::kReduceScatter, ""});
  ExpectSeen(grid, {"tp activations", Kind::kAllGather, ""});
}

TEST(PlantedFaultTest, FaultsOfContextParallelismAreSeen) {
  ExpectSeen({.cp = 2}, {"cp ring", Kind::kReceive, ""}, Lose);
  ExpectSeen({.cp = 2, .plan = PlanFromText("ulysses: 2")},
             {"cp heads", Kind::kAllToAll, ""});
}

TEST(PlantedFaultTest, FaultsOfShardedReplicasAreSeen) {
  const GridCase grid{.dp = 2, .plan = PlanFromText("sharding: PARAMETERS")};
  ExpectSeenInGradients(grid, {"dp", Kind::kReduceScatter, ""});
  ExpectSeen(grid, {"dp parameters", Kind::kAllGather, ""});
}

TEST(PlantedFaultTest, FaultsOfExpertParallelismAreSeen) {
  const MoeConfig experts = {.experts = 4, .top_k = 2, .expert_hidden = 24};
  ExpectSeen({.dp = 2, .ep = 2, .moe = experts},
             {"ep tokens", Kind::kAllToAllV, ""}, Lose);
  ExpectSeenInGradients({.dp = 4, .ep = 2, .moe = experts},
                        {"expert gradients", Kind::kAllReduce, ""});
}

TEST(PlantedFaultTest, LostMessagesBetweenStagesAreSeen) {
  ExpectSeen({.pp = 2}, {"pp", Kind::kReceive, "activation"}, Lose);
  ExpectSeenInGradients({.pp = 2}, {"pp", Kind::kReceive, "gradient"}, Lose);
}

}  // namespace
}  // namespace trireme
