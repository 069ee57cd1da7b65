#include "runtime/core/timeouts.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

double Seconds(Timeouts::Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

struct Step {
  std::string_view name;
  Timeouts::Duration after;
};

}  // namespace

Timeouts::Duration Timeouts::before_start(int64_t in_vain) const {
  if (in_vain < 2) return Duration(0);
  Duration pause = again;
  for (int64_t i = 2; i < in_vain && pause < again_at_most; ++i) pause *= 2;
  return std::min(pause, again_at_most);
}

absl::Status CheckOrder(const Timeouts& t) {
  // Each chain from what is inside to what is outside.
  std::vector<Step> silence = {{"a report's interval", t.heartbeat},
                               {"reconnecting", t.reconnect},
                               {"reaching the launch", t.reach},
                               {"a call", t.call},
                               {"naming a silent rank", t.named}};
  if (t.lost.count() > 0) silence.push_back({"--lost_after_s", t.lost});
  silence.insert(silence.end(),
                 {{"the silence of all ranks", t.all},
                  {"the end of a daemon that is cut off", t.cut_off()},
                  {"a rank's giving up by itself", t.given_up},
                  {"waiting for the run's folder", t.folder}});
  const std::vector<std::vector<Step>> chains = {
      silence,
      {{"a look for stopped ranks", t.look}, {"naming a silent rank", t.named}},
      {{"a call", t.call},
       {"a connection's handshake", t.handshake},
       {"a connection without calls", t.idle}},
      {{"a pause between starts", t.again},
       {"the longest of them", t.again_at_most}},
      {{"killing what does not end", t.kill},
       {"a rank's giving up by itself", t.given_up}},
      {{"an orphan's saving and ending", t.orphaned},
       {"waiting for the run's folder", t.folder}},
      {{"waiting for another thread in MPI", t.stuck},
       {"answers for the table of waits", t.answer},
       {"rank 0's reaction", t.rank_zero}},
      {{"the last saves", t.save_again * (t.save_attempts - 1)},
       {"Slurm's warning", t.warning}},
  };
  for (const std::vector<Step>& chain : chains) {
    for (size_t i = 1; i < chain.size(); ++i) {
      const Step& inner = chain[i - 1];
      const Step& outer = chain[i];
      if (inner.after < outer.after) continue;
      return InvalidArgument(
          "{}: found {} s, expected more than the {} s of {}", outer.name,
          Seconds(outer.after), Seconds(inner.after), inner.name);
    }
  }
  if (t.drain > t.communication) {
    return InvalidArgument(
        "communication_deadline_s: found {} s, expected at least the {} s of a "
        "communicator's end",
        Seconds(t.communication), Seconds(t.drain));
  }
  return absl::OkStatus();
}

std::string TimeoutsText(const Timeouts& t) {
  const std::string lost = t.lost.count() > 0
                               ? fmt::format("lost {} s", Seconds(t.lost))
                               : "never lost for that";
  return fmt::format(
      "watch  ranks report every {} s; silent ones: named after {} s, {}, all "
      "of them {} s, cut off {} s, ended by themselves {} s\n"
      "       a stopped one is lost within {} s; killed {} s after it was to "
      "end; after a start in vain the next one waits {} s, then twice as long, "
      "at most {} s; without its launch a run saves and ends after {} s; a "
      "collective waits {} s\n",
      Seconds(t.heartbeat), Seconds(t.named), lost, Seconds(t.all),
      Seconds(t.cut_off()), Seconds(t.given_up), Seconds(t.look),
      Seconds(t.kill), Seconds(t.again), Seconds(t.again_at_most),
      Seconds(t.orphaned), Seconds(t.communication));
}

}  // namespace trireme
