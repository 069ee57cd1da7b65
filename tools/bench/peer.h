// The same training steps in PyTorch (peer_step.py), for comparison.

#ifndef TRIREME_TOOLS_BENCH_PEER_H_
#define TRIREME_TOOLS_BENCH_PEER_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "tools/bench/figures.h"
#include "tools/bench/kernels.h"

namespace trireme {

// Runs peer_setup.sh and peer_step.py in `folder` (many minutes), for those of
// `models` and settings whose own step was measured, and adds
// "pytorch.<model>.<dtype>.threads<n>.step_s" of PyTorch's fastest way and
// "<model>.<dtype>.threads<n>.peer_ratio" (PyTorch's time over ours); and, with
// a way's name before step_s or after peer_ratio, those of each way: eager,
// autocast_compile, ...
absl::Status AddPeer(const std::string& folder,
                     const std::vector<std::string_view>& models,
                     const std::vector<BenchSetting>& settings,
                     Figures* figures);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PEER_H_
