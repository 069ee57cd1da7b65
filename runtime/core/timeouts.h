// How long everything in a job's life waits, in one place: what ends first is
// named first, and what a user sets moves what has to outlast it.

#ifndef TRIREME_RUNTIME_CORE_TIMEOUTS_H_
#define TRIREME_RUNTIME_CORE_TIMEOUTS_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace trireme {

// Three are given, the others follow from them where they are not set.
struct Timeouts {
  using Duration = std::chrono::milliseconds;

  // Given.

  // Between two reports of a rank to its launch.
  Duration heartbeat{200};
  // A rank that is silent for so long is lost, wherever it is; 0: never for
  // that (--lost_after_s).
  Duration lost = 50 * heartbeat;
  // A wait for a collective or message ends the job
  // (Job.communication_deadline_s).
  Duration communication = std::chrono::minutes(10);

  // A report, and whoever else asks the launch.

  // Between two attempts to reach a launch that may come back, and how long a
  // report waits for one of them.
  Duration reconnect = 5 * heartbeat / 2;
  Duration reach = 2 * reconnect;
  // A call.
  Duration call = 2 * reach;
  // Who connects and does not speak gRPC, or says nothing then, is let go.
  Duration handshake = 25 * heartbeat;
  Duration idle = 300 * heartbeat;

  // Silence, as the launch sees it.

  // Between two looks at what mpirun started on this machine: what is stopped
  // is lost.
  Duration look = reconnect;
  // A rank that has been silent for so long is named: no report takes longer.
  Duration named = reach + call;
  // All ranks are silent or have ended, and mpirun goes on: it is ended.
  Duration all = std::max(75 * heartbeat, lost + 25 * heartbeat);
  // From asking mpirun to end until all that is left here is killed.
  Duration kill = 25 * heartbeat;
  // From the start of the ranks until one of them reports; 0: never given up
  // for that. Of a later start: so many times as long as one took that came to
  // a step, and at least so long.
  Duration start{0};
  int start_times = 4;
  Duration start_at_least = 300 * heartbeat;
  // Before a start that follows one in vain, as where a disk fails for a while:
  // twice as long each time, up to the most.
  Duration again = 5 * heartbeat;
  Duration again_at_most = 300 * heartbeat;
  // Before a start that `in_vain` ones in a row precede, itself included: of
  // the first there is reason to hope, and it is made at once.
  Duration before_start(int64_t in_vain) const;
  // Whether a machine answers; where none does, each next time is twice as
  // long.
  Duration probe = 50 * heartbeat;

  // What is out of reach.

  // OpenMPI's daemons ask each other after so long without a word, and end
  // their ranks after so many questions without an answer.
  Duration daemon_idle = std::max(50 * heartbeat, lost);
  Duration daemon_question = 25 * heartbeat;
  int daemon_questions = 3;
  Duration cut_off() const {
    return daemon_idle + daemon_questions * daemon_question;
  }
  // A rank whose launch is gone, with nobody in its place, saves and ends.
  Duration orphaned = 150 * heartbeat;
  // A rank elsewhere that neither heard of its launch nor did a step ends by
  // itself: after that has given it up.
  Duration given_up = all + 225 * heartbeat;
  // A new start waits for a lost rank that still holds the run's folder.
  Duration folder = given_up + orphaned;

  // A wait for ranks that has become too long.

  // Another thread of the rank is in MPI: it counts as stuck there.
  Duration stuck = 5 * heartbeat;
  // Ranks are asked what they wait for, and rank 0 reacts to who asks.
  Duration answer = 15 * heartbeat;
  Duration rank_zero = 2 * answer;
  // A message of `launch --check`.
  Duration check = 150 * heartbeat;
  // A communicator's last operations, when it is destroyed.
  Duration drain = std::min(communication, 50 * heartbeat);

  // A job's end.

  // Slurm tells it so long before.
  Duration warning = 600 * heartbeat;
  // Between two attempts at the last checkpoint, of which there are so many.
  Duration save_again = 50 * heartbeat;
  int save_attempts = 3;
};

// InvalidArgument where something would end before what it contains, naming
// both.
absl::Status CheckOrder(const Timeouts& timeouts);

// What a launch says of them, in two lines.
std::string TimeoutsText(const Timeouts& timeouts);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_TIMEOUTS_H_
