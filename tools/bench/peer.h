// The same training step in PyTorch (peer_dit.py), for comparison.

#ifndef TRIREME_TOOLS_BENCH_PEER_H_
#define TRIREME_TOOLS_BENCH_PEER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/bench/figures.h"

namespace trireme {

// Runs peer_setup.sh and peer_dit.py in `folder` (some minutes) and adds
// "pytorch.<dtype>.threads<n>.step_s" of PyTorch's fastest way and, where our
// own step was measured, "dit_s2.<dtype>.threads<n>.peer_ratio" (PyTorch's time
// over ours); and, with a way's name before step_s or after peer_ratio, those
// of each way: eager, autocast_compile, ...
absl::Status AddPeer(const std::string& folder, const std::vector<int>& threads,
                     Figures* figures);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PEER_H_
