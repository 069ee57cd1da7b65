// The messages of one replica on their links: when each leaves and arrives.

#ifndef TRIREME_SCHEDULER_SIMULATOR_LINKS_H_
#define TRIREME_SCHEDULER_SIMULATOR_LINKS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/layout.h"
#include "scheduler/simulator/shared.h"
#include "scheduler/simulator/times.h"

namespace trireme {

class SimulatedLinks {
 public:
  // All must outlive the object.
  SimulatedLinks(const SimulatedProgram& program, const CostModel& cost,
                 int32_t replica, SimulatedTimes& times,
                 SimulatedShared& shared);

  // The next message of its link is sent at `sent_s`.
  void Send(int32_t message, double sent_s);
  // Its receive is posted at `posted_s`.
  void Post(int32_t message, double posted_s);
  // The first message of the link enters the channels that it waits for.
  void Enter(int32_t link);

  // Of a message that has been sent, and posted.
  double SentAt(int32_t message) const { return messages_[message].sent_s; }
  double PostedAt(int32_t message) const { return messages_[message].posted_s; }
  // The last arrival so far, or 0.
  double LastArrival() const;

 private:
  struct Message {
    double sent_s = 0;
    double posted_s = SimulatedTimes::kUnknown;
    int32_t send_index = -1;
    int32_t recv_index = -1;
  };
  struct Link {
    const SimulatedProgram::Link* ends = nullptr;
    double latency_s = 0;
    double bytes_per_s = 0;
    double free_s = 0;
    int32_t sent = 0;  // how many messages of the link have been sent
    int32_t left = 0;  // and have left
    bool has_channel = false;
    bool waits = false;  // its first message is in the queue for channels
  };

  // Moves the first messages of the link as long as both their ends are
  // issued.
  void Drain(int32_t link);
  void Transfer(int32_t link);

  const SimulatedProgram& program_;
  const int32_t replica_;
  SimulatedTimes& times_;
  SimulatedShared& shared_;
  std::vector<Link> links_;
  std::vector<std::array<Channel, 2>> channels_;  // [link]
  std::vector<Message> messages_;
  std::vector<double> lane_bytes_;  // [lane], of a message
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_LINKS_H_
