#include "trainer/health/stragglers.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "fmt/format.h"
#include "runtime/core/median.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

// Of the median of ranks with the same work; and at least so much longer, which
// is more than clocks and schedulers make.
constexpr double kSlowRank = 1.3;
constexpr double kLeastDelay_s = 1e-3;
// Of the median rate of like links, or of the best that the link had itself.
constexpr double kSlowLink = 0.25;
// A median of fewer is none.
constexpr size_t kLeastLinks = 2;
constexpr int64_t kMessageBytes = 256 << 10;
// The best of them counts: what else a machine does comes and goes.
constexpr int kMessages = 3;
// As many more of one that seems slow.
constexpr int kAttempts = 5;
// Control's and those of gathered tensors are others' of the same communicator,
// one after the other.
constexpr int kTag = 2;
constexpr char kName[] = "message to try a link";

}  // namespace

std::optional<int> PartnerOf(int rank, int ranks, int64_t round) {
  // With an even number one place stays, and the others turn.
  const int places = ranks + ranks % 2;
  const int turning = places - 1;
  const auto now = static_cast<int>(round % turning);
  int partner = 0;
  if (rank == turning) {
    // Whose own partner would be itself: 2·p ≡ now.
    partner = (now % 2 == 0 ? now : now + turning) / 2;
  } else {
    partner = ((now - rank) % turning + turning) % turning;
    if (partner == rank) partner = turning;
  }
  if (partner >= ranks) return std::nullopt;
  return partner;
}

StragglerWatch::StragglerWatch(Communicator& world, Control& control,
                               const std::string& host, int stage,
                               int64_t every)
    : world_(world),
      control_(control),
      every_(every),
      hosts_(HostLayout::Gather(control, host)),
      stages_(control.size()) {
  stages_[control_.rank()] = stage;
  control_.Sum(stages_, "stages");
}

bool StragglerWatch::AfterStep(int64_t step, double own_compute_s) {
  computed_s_ += own_compute_s;
  ++steps_;
  if (every_ == 0 || step % every_ != 0 || control_.size() == 1) return false;
  findings_.clear();
  LookAtRanks();
  LookAtLinks();
  return true;
}

void StragglerWatch::LookAtRanks() {
  std::vector<double> seconds(control_.size());
  seconds[control_.rank()] = computed_s_ / static_cast<double>(steps_);
  control_.Sum(seconds, "seconds of computation");
  computed_s_ = 0;
  steps_ = 0;
  for (int rank = 0; rank < control_.size(); ++rank) {
    std::vector<double> alike;
    for (int other = 0; other < control_.size(); ++other) {
      if (stages_[other] == stages_[rank]) alike.push_back(seconds[other]);
    }
    // The lower of two middles: of two ranks the faster.
    std::sort(alike.begin(), alike.end());
    const double median = alike[(alike.size() - 1) / 2];
    if (seconds[rank] < kSlowRank * median ||
        seconds[rank] < median + kLeastDelay_s) {
      continue;
    }
    findings_.push_back(fmt::format(
        "{} computes {:.3g} s a step, the median of {} ranks with the same "
        "work {:.3g} s",
        NameOf(rank), seconds[rank], alike.size(), median));
  }
}

void StragglerWatch::LookAtLinks() {
  std::vector<Pair> pairs;
  for (int rank = 0; rank < control_.size(); ++rank) {
    const auto partner = PartnerOf(rank, control_.size(), looks_);
    if (partner.has_value() && rank < *partner) {
      pairs.emplace_back(rank, *partner);
    }
  }
  ++looks_;
  for (const Pair& pair : pairs) {
    Link& link = links_[pair];
    link.best = std::max(link.best, std::exchange(link.rate, 0));
  }
  Measure(pairs);
  // What else a host or a switch did may have been in the way: one that is slow
  // is tried again, alone.
  for (const auto& [pair, link] : links_) {
    for (int attempt = 0; attempt < kAttempts && !TroubleOf(pair).empty();
         ++attempt) {
      Measure({pair});
    }
    std::string trouble = TroubleOf(pair);
    if (!trouble.empty()) findings_.push_back(std::move(trouble));
  }
}

void StragglerWatch::Measure(const std::vector<Pair>& pairs) {
  std::vector<double> rates(control_.size());
  const int own = control_.rank();
  world_.Barrier(kName);
  for (const auto& [first, second] : pairs) {
    if (own != first && own != second) continue;
    CpuDevice device(std::numeric_limits<int64_t>::max());
    const Tensor data = Tensor::Zeros(device, {kMessageBytes}, DType::kUint8,
                                      MemoryCategory::kCommunication, kName);
    for (int message = 0; message < kMessages; ++message) {
      const Clock::time_point start = Clock::now();
      if (own == first) {
        world_.Send(data, second, kTag, kName).Synchronize();
        world_.Receive(data, second, kTag, kName).Synchronize();
      } else {
        world_.Receive(data, first, kTag, kName).Synchronize();
        world_.Send(data, first, kTag, kName).Synchronize();
      }
      const std::chrono::duration<double> seconds = Clock::now() - start;
      if (own == first) {
        rates[own] = std::max(rates[own], 2 * kMessageBytes / seconds.count());
      }
    }
  }
  control_.Sum(rates, "rates of links");
  for (const Pair& pair : pairs) {
    links_[pair].rate = std::max(links_[pair].rate, rates[pair.first]);
  }
}

std::string StragglerWatch::TroubleOf(const Pair& pair) const {
  const Link& link = links_.at(pair);
  std::vector<double> others;
  for (const auto& [other, measured] : links_) {
    if (other != pair && OnOneHost(other) == OnOneHost(pair)) {
      others.push_back(measured.rate);
    }
  }
  const std::string found =
      fmt::format("the link of {} and {} moves {:.3g} MB/s", NameOf(pair.first),
                  NameOf(pair.second), link.rate / 1e6);
  const double median = Median(others);
  if (others.size() >= kLeastLinks && link.rate < kSlowLink * median) {
    return fmt::format("{}, the median of {} other links {} hosts {:.3g} MB/s",
                       found, others.size(),
                       OnOneHost(pair) ? "within" : "between", median / 1e6);
  }
  if (link.rate < kSlowLink * link.best) {
    return fmt::format("{}, {:.3g} MB/s at its best", found, link.best / 1e6);
  }
  return "";
}

std::string StragglerWatch::NameOf(int rank) const {
  return fmt::format("rank {} ({})", rank, hosts_.NameOf(hosts_.HostOf(rank)));
}

bool StragglerWatch::OnOneHost(const Pair& pair) const {
  return hosts_.HostOf(pair.first) == hosts_.HostOf(pair.second);
}

}  // namespace trireme
