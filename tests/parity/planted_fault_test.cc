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

struct Fault {
  enum class Kind {
    // The all-reduce is left out: every rank keeps its own part.
    kForget,
    // The sum counts every rank as often as there are ranks.
    kScale,
  };
  Kind kind = Kind::kForget;
  // Of the communicator's name.
  std::string_view prefix;
  // Part of the operation's name.
  std::string_view operation;
};

class FaultyCommunicator final : public ForwardingCommunicator {
 public:
  FaultyCommunicator(std::unique_ptr<Communicator> real, const Fault& fault)
      : ForwardingCommunicator(std::move(real)), fault_(fault) {}

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view operation) override {
    const bool faulty =
        name().starts_with(fault_.prefix) &&
        operation.find(fault_.operation) != std::string_view::npos;
    if (faulty && fault_.kind == Fault::Kind::kForget) return Event();
    Event event = ForwardingCommunicator::AllReduce(data, op, operation);
    if (faulty) {
      event.Wait();
      data.CopyFrom(Scale(data, size()));
    }
    return event;
  }

 private:
  const Fault fault_;
};

class FaultyFactory final : public CommunicatorFactory {
 public:
  FaultyFactory(CommunicatorFactory& real, const Fault& fault)
      : real_(real), fault_(fault) {}

  int world_rank() const override { return real_.world_rank(); }
  int world_size() const override { return real_.world_size(); }
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override {
    return std::make_unique<FaultyCommunicator>(
        real_.Create(ranks, name, progress), fault_);
  }

 private:
  CommunicatorFactory& real_;
  Fault fault_;
};

ParityReport ReportWith(const GridCase& grid, const Fault& fault) {
  return Compare(Record(OneRank(grid)),
                 Record(grid, [&fault](CommunicatorFactory& real) {
                   return std::make_unique<FaultyFactory>(real, fault);
                 }));
}

void ExpectSeen(const GridCase& grid, const Fault& fault) {
  const ParityReport report = ReportWith(grid, fault);
  EXPECT_FALSE(Within(report, ToleranceOf(grid.dtype)))
      << fault.operation << " over " << fault.prefix << " of " << grid.Name();
  EXPECT_NEAR(report.losses[0], report.reference_losses[0], 1e-12);
}

TEST(PlantedFaultTest, WithoutAFaultTheWrapperChangesNothing) {
  const GridCase grid{.tp = 2, .pp = 2, .dp = 2};
  const ParityReport report =
      ReportWith(grid, {Fault::Kind::kForget, "none", "none"});
  EXPECT_TRUE(Within(report, ToleranceOf(grid.dtype)));
}

// Gradients of head-norm scales and, with sequence parallelism, of all that is
// applied to local tokens are parts of a sum over tp.
TEST(PlantedFaultTest, AForgottenSumOfReplicatedParametersIsSeen) {
  const Fault fault{Fault::Kind::kForget, "tp", "gradient bucket"};
  ExpectSeen({.tp = 2}, fault);
  ExpectSeen({.tp = 2, .plan = PlanFromText("sequence_parallel: true")}, fault);
}

TEST(PlantedFaultTest, AForgottenSumOfInputGradientsIsSeen) {
  ExpectSeen({.tp = 2}, {Fault::Kind::kForget, "tp", "input gradient"});
}

TEST(PlantedFaultTest, AForgottenSumOverReplicasIsSeen) {
  const Fault fault{Fault::Kind::kForget, "dp", "gradient bucket"};
  ExpectSeen({.dp = 2}, fault);
  ExpectSeen({.pp = 2, .dp = 2}, fault);
}

TEST(PlantedFaultTest, AScaleByTpIsSeen) {
  ExpectSeen({.tp = 2}, {Fault::Kind::kScale, "tp", "input gradient"});
  ExpectSeen({.tp = 2}, {Fault::Kind::kScale, "tp", "Invariant to Replicate"});
}

}  // namespace
}  // namespace trireme
