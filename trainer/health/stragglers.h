// Who keeps the others waiting: a rank whose own computation takes longer than
// that of ranks with the same work, or a link over which messages take longer
// than over others.
//
// A wait says nothing of its cause: everyone waits for a slow rank, and for
// what comes over a slow link. So computation is compared by what each rank
// itself measured of its steps, without waits, and links by messages of their
// own between steps: in each look every rank exchanges some with one other, in
// the next look with another one, until all pairs have been.

#ifndef TRIREME_TRAINER_HEALTH_STRAGGLERS_H_
#define TRIREME_TRAINER_HEALTH_STRAGGLERS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "trainer/checkpoints/host_layout.h"

namespace trireme {

// The rank with which `rank` exchanges messages in a round of a tournament of
// `ranks` players, by the circle method: in ranks − 1 rounds (ranks, of an odd
// number) each meets each. Nothing: it pauses.
std::optional<int> PartnerOf(int rank, int ranks, int64_t round);

class StragglerWatch {
 public:
  // `world` and `control`, over the same ranks, outlive it. `host`: this
  // rank's; `stage`: ranks of one stage have the same work; `every`: steps
  // between two looks, 0: never. Collective.
  StragglerWatch(Communicator& world, Control& control, const std::string& host,
                 int stage, int64_t every);

  // After each step, of which this rank computed so many seconds itself.
  // Collective. Whether it looked: then findings() is new.
  bool AfterStep(int64_t step, double own_compute_s);

  // The same on all ranks: "rank 3 (b) computes 0.2 s a step, the median of 4
  // ranks with the same work 0.1 s".
  const std::vector<std::string>& findings() const { return findings_; }

 private:
  using Pair = std::pair<int, int>;  // ascending
  struct Link {
    double rate = 0;  // bytes a second, as last measured
    double best = 0;  // of the times before
  };

  void LookAtRanks();
  void LookAtLinks();
  // Of this look's links, or of one alone.
  void Measure(const std::vector<Pair>& pairs);
  // What is wrong with it; empty where nothing is.
  std::string TroubleOf(const Pair& pair) const;
  std::string NameOf(int rank) const;
  bool OnOneHost(const Pair& pair) const;

  Communicator& world_;
  Control& control_;
  const int64_t every_;
  const HostLayout hosts_;
  std::vector<double> stages_;  // by rank
  std::vector<std::string> findings_;
  std::map<Pair, Link> links_;
  int64_t looks_ = 0;
  double computed_s_ = 0;  // since the last look, in steps_
  int64_t steps_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_HEALTH_STRAGGLERS_H_
