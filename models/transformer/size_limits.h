// Sizes that models may have.

#ifndef TRIREME_MODELS_TRANSFORMER_SIZE_LIMITS_H_
#define TRIREME_MODELS_TRANSFORMER_SIZE_LIMITS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace trireme {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
namespace size_limits {

inline constexpr int64_t kHidden = 1 << 17;
inline constexpr int64_t kLayers = 1 << 12;
// What the attention kernels hold of one head.
inline constexpr int64_t kHeadDim = 1024;
// Of one sample, picture and text. Tables are made for each.
inline constexpr int64_t kTokens = 1 << 20;

}  // namespace size_limits

// Whether the kernels of attention hold heads so wide.
absl::Status CheckHeadWidth(std::string_view field, int64_t heads,
                            int64_t head_dim);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_SIZE_LIMITS_H_
