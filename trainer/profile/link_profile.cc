#include "trainer/profile/link_profile.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "runtime/device/host.h"
#include "trainer/profile/profile_statistics.h"

namespace trireme {
namespace {

// Together, ranks are slowed down by one another when they reach less than this
// of what they would reach alone.
constexpr double kSharedBelow = 0.9;

// A transfer is told from latency when the round trip takes so many times an
// empty one.
constexpr double kTransferCounts = 4;

struct LinkTimes {
  double latency_s = 0;
  double bytes_per_s = 0;
  double spread = 0;
};

class LinkProfiler {
 public:
  LinkProfiler(const LinkProfileOptions& options, Device& device,
               Communicator& world, std::span<const int> node_of)
      : options_(options),
        device_(device),
        world_(world),
        node_of_(node_of),
        small_(Message(device, options.small_bytes)) {
    for (int rank = 0; rank < world.size(); ++rank) {
      if (rank == 0 || node_of[rank] != node_of[rank - 1]) {
        first_.push_back(rank);
        count_.push_back(0);
      }
      ++count_.back();
    }
  }

  int num_nodes() const { return static_cast<int>(first_.size()); }
  int first(int node) const { return first_[node]; }
  int count(int node) const { return count_[node]; }

  // Messages there and small answers, between this rank and `peer`.
  LinkTimes Measure(int peer, bool sends) const {
    const double both = Median(RoundTrips(small_, peer, sends));
    for (int64_t bytes = options_.large_bytes;; bytes *= 4) {
      std::vector<double> more =
          RoundTrips(Message(device_, bytes), peer, sends);
      const double loaded = Median(more);
      if (Again(peer, sends,
                loaded < kTransferCounts * both &&
                    4 * bytes <= options_.largest_bytes)) {
        continue;
      }
      // Where latency is all that was seen, half of it may be transfer.
      for (double& seconds : more) {
        seconds = std::max(seconds - both, seconds / 2);
      }
      LinkTimes times;
      times.bytes_per_s =
          static_cast<double>(bytes - options_.small_bytes) / Median(more);
      times.latency_s =
          std::max(0.0, both / 2 - static_cast<double>(options_.small_bytes) /
                                       times.bytes_per_s);
      times.spread = Spread(more);
      return times;
    }
  }

  // Measures from rank `from` to rank `to`, if this is one of them; what the
  // sender found is kept.
  void Between(int from, int to, LinkTimes& found) const {
    if (world_.rank() == from) found = Measure(to, /*sends=*/true);
    if (world_.rank() == to) Measure(from, /*sends=*/false);
  }

  // own[peer] for this rank's links inside its node.
  void InsideNodes(std::vector<LinkTimes>& own) const {
    const int rank = world_.rank();
    const int node = node_of_[rank];
    const int most = *std::max_element(count_.begin(), count_.end());
    const auto rounds = RoundRobin(count_[node]);
    for (size_t i = 0; i + 1 < static_cast<size_t>(most + most % 2); ++i) {
      world_.Barrier("profile round");
      if (i >= rounds.size()) continue;
      for (const auto& [a, b] : rounds[i]) {
        const int low = first_[node] + a;
        const int high = first_[node] + b;
        if (rank == low || rank == high) {
          Between(low, high, own[high]);
          Between(high, low, own[low]);
        }
      }
    }
  }

  // own[peer] for this rank's links to other nodes: alone[node] from the
  // node's first rank, together[node] with all others at once.
  void BetweenNodes(std::vector<LinkTimes>& alone,
                    std::vector<LinkTimes>& together) const {
    const int rank = world_.rank();
    for (const auto& round : RoundRobin(num_nodes())) {
      for (const bool up : {true, false}) {
        for (const bool all : {false, true}) {
          world_.Barrier("profile round");
          for (const auto& [a, b] : round) {
            const int from = up ? a : b;
            const int to = up ? b : a;
            const int pairs = all ? std::min(count_[a], count_[b]) : 1;
            if (all && pairs == 1) continue;
            for (int i = 0; i < pairs; ++i) {
              if (rank != first_[from] + i && rank != first_[to] + i) continue;
              Between(first_[from] + i, first_[to] + i,
                      (all ? together : alone)[to]);
            }
          }
        }
      }
    }
  }

  // What this rank sends to its counterparts on all other nodes at once, in
  // bytes/s, while the others of its node do the same.
  double ToAllNodes() const {
    double own = 0;
    for (int node = 0; node < num_nodes(); ++node) {
      world_.Barrier("profile round");
      const int place = world_.rank() - first_[node_of_[world_.rank()]];
      if (place >= count_[node]) continue;
      if (node_of_[world_.rank()] == node) {
        own = SendToAll(place);
      } else {
        Answer(first_[node] + place);
      }
    }
    return own;
  }

 private:
  int CardRepetitions() const { return std::max(1, options_.repetitions / 3); }

  double SendToAll(int place) const {
    const Tensor large = Message(device_, options_.large_bytes);
    int64_t peers = 0;
    const double seconds =
        Median(TimesOf(CardRepetitions(), device_.stream(), [&] {
          std::vector<Event> events;
          peers = 0;
          for (int node = 0; node < num_nodes(); ++node) {
            if (node == node_of_[world_.rank()] || place >= count_[node])
              continue;
            ++peers;
            events.push_back(
                world_.Send(large, first_[node] + place, 3, "profile"));
            events.push_back(world_.Receive(
                Message(device_, 1), first_[node] + place, 4, "profile"));
          }
          for (Event& event : events) event.Wait();
        }));
    return static_cast<double>(peers * options_.large_bytes) / seconds;
  }

  // The other end of one message of SendToAll, each time.
  void Answer(int from) const {
    const Tensor large = Message(device_, options_.large_bytes);
    TimesOf(CardRepetitions(), device_.stream(), [&] {
      world_.Receive(large, from, 3, "profile").Wait();
      world_.Send(Message(device_, 1), from, 4, "profile").Wait();
    });
  }

  // Seconds of `there` and an answer.
  std::vector<double> RoundTrips(const Tensor& there, int peer,
                                 bool sends) const {
    return TimesOf(options_.repetitions, device_.stream(), [&] {
      if (sends) {
        world_.Send(there, peer, 0, "profile").Wait();
        world_.Receive(small_, peer, 1, "profile").Wait();
      } else {
        world_.Receive(there, peer, 0, "profile").Wait();
        world_.Send(small_, peer, 1, "profile").Wait();
      }
    });
  }

  // What the sender decides.
  bool Again(int peer, bool sends, bool decision) const {
    const std::array<uint8_t, 1> decided = {decision ? uint8_t{1} : uint8_t{0}};
    const Tensor word = Upload<uint8_t>(
        device_, {1}, decided, MemoryCategory::kCommunication, "probe");
    if (sends) {
      world_.Send(word, peer, 2, "profile").Wait();
    } else {
      world_.Receive(word, peer, 2, "profile").Wait();
    }
    return Download<uint8_t>(word).front() != 0;
  }

  static Tensor Message(Device& device, int64_t bytes) {
    return Tensor::Zeros(device, {bytes}, DType::kUint8,
                         MemoryCategory::kCommunication, "probe");
  }

  const LinkProfileOptions& options_;
  Device& device_;
  Communicator& world_;
  const std::span<const int> node_of_;
  const Tensor small_;
  // By node.
  std::vector<int> first_;
  std::vector<int> count_;
};

std::vector<double> Flat(const std::vector<LinkTimes>& times) {
  std::vector<double> flat;
  for (const LinkTimes& link : times) {
    flat.insert(flat.end(), {link.latency_s, link.bytes_per_s, link.spread});
  }
  return flat;
}

LinkTimes At(const std::vector<double>& flat, int i) {
  return {flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]};
}

}  // namespace

std::vector<std::vector<std::pair<int, int>>> RoundRobin(int n) {
  // One place is fixed, the others turn; with odd n the fixed one is empty.
  const int places = n + n % 2;
  std::vector<int> circle(places);
  std::iota(circle.begin(), circle.end(), 0);
  std::vector<std::vector<std::pair<int, int>>> rounds;
  for (int round = 0; round + 1 < places; ++round) {
    std::vector<std::pair<int, int>>& pairs = rounds.emplace_back();
    for (int i = 0; i < places / 2; ++i) {
      const int a = circle[i];
      const int b = circle[places - 1 - i];
      if (a < n && b < n) pairs.emplace_back(std::min(a, b), std::max(a, b));
    }
    std::rotate(circle.begin() + 1, circle.end() - 1, circle.end());
  }
  return rounds;
}

LinkMeasurements MeasureLinks(const LinkProfileOptions& options, Device& device,
                              Communicator& world,
                              std::span<const int> node_of) {
  const LinkProfiler profiler(options, device, world, node_of);
  const int nodes = profiler.num_nodes();
  std::vector<LinkTimes> own(world.size()), alone(nodes), together(nodes);
  profiler.InsideNodes(own);
  profiler.BetweenNodes(alone, together);
  const auto inside = GatherRows(world, Flat(own));
  const auto single = GatherRows(world, Flat(alone));
  const auto shared = GatherRows(world, Flat(together));
  const auto to_all =
      GatherRows(world, {nodes > 2 ? profiler.ToAllNodes() : 0});
  LinkMeasurements measured;
  if (world.rank() != 0) return measured;
  auto& links = measured.links;
  for (int from = 0; from < nodes; ++from) {
    const int first = profiler.first(from);
    const int end = first + profiler.count(from);
    if (end - first > 1) {
      std::vector<double> latencies, rates;
      for (int a = first; a < end; ++a) {
        for (int b = first; b < end; ++b) {
          if (a == b) continue;
          latencies.push_back(At(inside[a], b).latency_s);
          rates.push_back(At(inside[a], b).bytes_per_s);
        }
      }
      links[{from, from}] = {.latency_s = Median(latencies),
                             .bytes_per_s = Median(rates),
                             .spread = Spread(rates)};
    }
    for (int to = 0; to < nodes; ++to) {
      if (to == from) continue;
      const LinkTimes one = At(single[first], to);
      LinkMeasurement& link = links[{from, to}];
      link.latency_s = one.latency_s;
      link.bytes_per_s = one.bytes_per_s;
      link.spread = one.spread;
      double sum = 0;
      const int pairs = std::min(end - first, profiler.count(to));
      for (int i = 0; i < pairs && pairs > 1; ++i) {
        sum += At(shared[first + i], to).bytes_per_s;
      }
      if (sum > 0 && sum < kSharedBelow * pairs * one.bytes_per_s) {
        link.shared_bytes_per_s = sum;
      }
    }
    double card = 0, apart = 0;
    for (int rank = first; rank < end; ++rank) card += to_all[rank][0];
    for (int to = 0; to < nodes; ++to) {
      if (to == from) continue;
      const LinkMeasurement& link = links[{from, to}];
      const int pairs = std::min(end - first, profiler.count(to));
      apart += link.shared_bytes_per_s > 0 ? link.shared_bytes_per_s
                                           : pairs * link.bytes_per_s;
    }
    measured.cards.push_back(card < kSharedBelow * apart ? card : 0);
  }
  return measured;
}

}  // namespace trireme
