// Experts whose weights are on every rank for as long as a call uses them,
// while their rows stay with the tokens.

#ifndef TRIREME_MOE_SHADOWED_EXPERTS_H_
#define TRIREME_MOE_SHADOWED_EXPERTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/autograd/parameter.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/event.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct ShadowedExperts {
  // Of all, ascending: the same on every rank of the expert group.
  std::vector<int64_t> experts;
  // Rows of this rank's tokens for each.
  std::vector<int64_t> counts;
  // That memory is taken for.
  int64_t capacity = 0;
};

// Their matrices [shadowed, out, in], on their way from the ranks that own
// them. A collective over `group`.
class ShadowedWeights {
 public:
  ShadowedWeights(Communicator& group, const ShadowedExperts& shadowed,
                  const Parameter& weight, const std::string& name);
  // What the current stream is given from now on comes after their arrival.
  const Tensor& Wait();

 private:
  Tensor weights_;
  std::vector<Event> arrived_;
};

// Adds the sums over all ranks of dyᵀ·x of each expert's rows to the gradients
// of the ranks that own them: rank by rank, as ExpertRows::from_ranks has them
// summed. A collective over `group`.
void AddShadowedGradient(Communicator& group, const ShadowedExperts& shadowed,
                         const Tensor& x, const Tensor& dy, Parameter& weight,
                         const std::string& name);

}  // namespace trireme

#endif  // TRIREME_MOE_SHADOWED_EXPERTS_H_
