// What the replicas of one simulation have in common: the ranks that can go on,
// the queue before channels and shared processors, the channels, and where
// replicas meet: at collectives that pass channels, and at ClipGradients.

#ifndef TRIREME_SCHEDULER_SIMULATOR_SHARED_H_
#define TRIREME_SCHEDULER_SIMULATOR_SHARED_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <queue>
#include <tuple>
#include <vector>

namespace trireme {

class SimulatedShared {
 public:
  struct Rank {
    int32_t replica = 0;
    int32_t rank = 0;
  };
  // What waits for a channel or a processor.
  struct Waiting {
    enum class Kind : uint8_t { kLink, kCollective, kRank };

    double ready_s = 0;
    // Ties are taken in the order of arrival.
    int64_t number = 0;
    Kind kind = Kind::kLink;
    int32_t replica = 0;  // not of collectives, which are all replicas'
    int32_t index = 0;    // of the link, or the rank

    bool operator>(const Waiting& other) const {
      return std::tie(ready_s, number) > std::tie(other.ready_s, other.number);
    }
  };

  SimulatedShared(int32_t replicas, int32_t ranks)
      : replicas_(replicas), ranks_(ranks), meetings_(ranks) {}

  // Ranks go on in the reverse order.
  void GoOn(int32_t replica, int32_t rank) {
    ready_.push_back({replica, rank});
  }
  bool AnyReady() const { return !ready_.empty(); }
  Rank TakeReady() {
    const Rank rank = ready_.back();
    ready_.pop_back();
    return rank;
  }

  void Wait(Waiting::Kind kind, double ready_s, int32_t replica,
            int32_t index) {
    waiting_.push({ready_s, waited_++, kind, replica, index});
  }
  bool AnyWaiting() const { return !waiting_.empty(); }
  Waiting TakeWaiting() {
    const Waiting first = waiting_.top();
    waiting_.pop();
    return first;
  }

  void AddChannel(int32_t number) {
    const auto count = static_cast<int32_t>(channel_free_s_.size());
    channel_free_s_.resize(std::max(count, number + 1));
  }
  double& ChannelFree(int32_t number) { return channel_free_s_[number]; }

  // The rank's next collective that passes channels is ready in one replica. It
  // waits for the channels once it is ready in all.
  void ArriveAtCollective(int32_t rank, double ready_s) {
    Meeting& meeting = meetings_[rank];
    meeting.ready_s = std::max(meeting.ready_s, ready_s);
    if (++meeting.replicas < replicas_) return;
    Wait(Waiting::Kind::kCollective, meeting.ready_s, 0, rank);
    meeting = {};
  }
  // The rank is ready for ClipGradients. True for the last one of all, at which
  // all others go on.
  bool ArriveAtClip(int32_t replica, int32_t rank, double ready_s) {
    latest_at_clip_s_ = std::max(latest_at_clip_s_, ready_s);
    if (++at_clip_ < int64_t{replicas_} * ranks_) return false;
    clip_known_ = true;
    for (int32_t other = 0; other < replicas_; ++other) {
      for (int32_t i = 0; i < ranks_; ++i) {
        if (other != replica || i != rank) GoOn(other, i);
      }
    }
    return true;
  }
  bool ClipKnown() const { return clip_known_; }
  double ClipStart() const { return latest_at_clip_s_; }

 private:
  struct Meeting {
    int32_t replicas = 0;
    double ready_s = 0;
  };

  std::vector<Rank> ready_;
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> waiting_;
  int64_t waited_ = 0;
  std::vector<double> channel_free_s_;
  int32_t replicas_ = 1;
  int32_t ranks_ = 0;              // of each replica
  std::vector<Meeting> meetings_;  // [rank]
  int64_t at_clip_ = 0;
  double latest_at_clip_s_ = 0;
  bool clip_known_ = false;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_SHARED_H_
