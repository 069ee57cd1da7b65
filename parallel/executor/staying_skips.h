// Skips of a microbatch that stay on their rank: one chunk has made them, and
// another will read them, while the stages between the two run on other ranks.
// No message has them. Likewise their gradients, the other way round.

#ifndef TRIREME_PARALLEL_EXECUTOR_STAYING_SKIPS_H_
#define TRIREME_PARALLEL_EXECUTOR_STAYING_SKIPS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "parallel/executor/chunk.h"
#include "runtime/core/log.h"

namespace trireme {

// What a message between stages has of what crosses there.
inline std::vector<BoundarySpec> Travelling(std::vector<BoundarySpec> specs) {
  std::erase_if(specs, [](const BoundarySpec& spec) { return spec.stays; });
  return specs;
}

// Moves what stays of a chunk's first or last Boundary to `staying`, by the
// block that made it, and returns the rest.
template <typename T>
std::vector<T> LeaveStaying(const std::vector<BoundarySpec>& specs,
                            std::vector<T> tensors,
                            std::map<int64_t, T>& staying) {
  CHECK_EQ(specs.size(), tensors.size());
  std::vector<T> travelling;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].stays) {
      staying.emplace(specs[i].skip_of, std::move(tensors[i]));
    } else {
      travelling.push_back(std::move(tensors[i]));
    }
  }
  return travelling;
}

// The whole Boundary again, with what stayed where it belongs.
template <typename T>
std::vector<T> JoinStaying(const std::vector<BoundarySpec>& specs,
                           std::vector<T> travelling,
                           std::map<int64_t, T>& staying) {
  std::vector<T> tensors;
  size_t next = 0;
  for (const BoundarySpec& spec : specs) {
    if (!spec.stays) {
      CHECK_LT(next, travelling.size());
      tensors.push_back(std::move(travelling[next++]));
      continue;
    }
    auto stayed = staying.extract(spec.skip_of);
    CHECK(!stayed.empty()) << "the skip of block " << spec.skip_of
                           << " is not on the rank that reads it";
    tensors.push_back(std::move(stayed.mapped()));
  }
  CHECK_EQ(next, travelling.size());
  return tensors;
}

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_STAYING_SKIPS_H_
