// Which ranks of a job lie on which hosts.

#ifndef TRIREME_TRAINER_CHECKPOINTS_HOST_LAYOUT_H_
#define TRIREME_TRAINER_CHECKPOINTS_HOST_LAYOUT_H_

#include <optional>
#include <string>
#include <vector>

#include "runtime/comm/control.h"

namespace trireme {

class HostLayout {
 public:
  // `names`: of each rank's host; `rank`: this one.
  HostLayout(std::vector<std::string> names, int rank);
  // From each rank's own. Collective.
  static HostLayout Gather(Control& control, const std::string& own);

  int rank() const { return rank_; }
  // Hosts are numbered by their first ranks.
  int hosts() const { return static_cast<int>(ranks_.size()); }
  int HostOf(int rank) const { return host_of_[rank]; }
  int own_host() const { return host_of_[rank_]; }
  // Ascending.
  const std::vector<int>& RanksOn(int host) const { return ranks_[host]; }
  const std::string& NameOf(int host) const { return names_[host]; }
  // This is the first rank of its host.
  bool leads() const { return RanksOn(own_host()).front() == rank_; }

  // The rank of the same place on the next host, which keeps what must outlive
  // this rank's host; nothing on a single host. Of a host with fewer ranks they
  // take turns.
  std::optional<int> PeerOf(int rank) const;

 private:
  const int rank_;
  std::vector<std::string> names_;
  std::vector<std::vector<int>> ranks_;
  std::vector<int> host_of_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_HOST_LAYOUT_H_
