// A family's mixture of experts, from the job's fields to sizes and back.

#ifndef TRIREME_MODELS_TRANSFORMER_MOE_FIELDS_H_
#define TRIREME_MODELS_TRANSFORMER_MOE_FIELDS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/transformer/mixture_of_experts.pb.h"
#include "moe/moe_config.h"

namespace trireme {

struct BlockExperts {
  MoeConfig moe;
  // Blocks n, 2n, .. have experts.
  int64_t every = 1;

  bool Has(int64_t block) const { return (block + 1) % every == 0; }
};

// Fills what is left out from `defaults`. Errors name the field behind `path`
// ("model.dit.moe"), what was found and what was expected. `layers`: blocks of
// the model.
absl::StatusOr<BlockExperts> ResolveMoe(const MixtureOfExperts& moe,
                                        std::string_view path,
                                        const MoeConfig& defaults,
                                        int64_t layers);

// Writes the resolved sizes back.
void FillMoe(const BlockExperts& experts, MixtureOfExperts& moe);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_MOE_FIELDS_H_
