#include "trainer/checkpoints/host_layout.h"

#include <algorithm>
#include <utility>

namespace trireme {

HostLayout::HostLayout(std::vector<std::string> names, int rank) : rank_(rank) {
  for (const std::string& name : names) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    const auto host = static_cast<int>(found - names_.begin());
    if (found == names_.end()) {
      names_.push_back(name);
      ranks_.emplace_back();
    }
    ranks_[host].push_back(static_cast<int>(host_of_.size()));
    host_of_.push_back(host);
  }
}

HostLayout HostLayout::Gather(Control& control, const std::string& own) {
  return {control.AllGather(own, "hosts"), control.rank()};
}

std::optional<int> HostLayout::PeerOf(int rank) const {
  if (hosts() == 1) return std::nullopt;
  const std::vector<int>& neighbours = RanksOn(HostOf(rank));
  const auto place = std::find(neighbours.begin(), neighbours.end(), rank) -
                     neighbours.begin();
  const std::vector<int>& next = RanksOn((HostOf(rank) + 1) % hosts());
  return next[place % next.size()];
}

}  // namespace trireme
